"""How good detections are: AP as COCO counts it, confusion, thresholds, and pictures of them."""
