"""The parts that networks are made of; each stands by itself."""

from detr.layers.attention import CrossAttention, SelfAttention, may_look
from detr.layers.deformable import DeformableAttention, DeformableDecoderLayer, DeformableEncoderLayer
from detr.layers.position import anchors, inverse_sigmoid, sine_embedding, sine_of_boxes
from detr.layers.timm import channel_attention
from detr.layers.transformer import MLP, DecoderLayer, EncoderLayer, FeedForward, SwiGLU

__all__ = [
    "MLP",
    "CrossAttention",
    "DecoderLayer",
    "DeformableAttention",
    "DeformableDecoderLayer",
    "DeformableEncoderLayer",
    "EncoderLayer",
    "FeedForward",
    "SelfAttention",
    "SwiGLU",
    "anchors",
    "channel_attention",
    "inverse_sigmoid",
    "may_look",
    "sine_embedding",
    "sine_of_boxes",
]
