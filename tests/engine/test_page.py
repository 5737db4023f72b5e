from detr.engine.page import Section, write_page


def test_page_shows_what_it_is_given(tmp_path):
    write_page(
        tmp_path / "index.html",
        "A title",
        "A lead",
        [
            Section(
                "Numbers",
                "words",
                table=[["metric", "value"], ["AP", "0.5"]],
                pictures=[("a.jpg", "first")],
                video="v.mp4",
            )
        ],
    )
    text = (tmp_path / "index.html").read_text()
    for piece in ("<h1>A title</h1>", "<th>metric</th>", "<td>0.5</td>", 'src="a.jpg"', 'src="v.mp4"', "first"):
        assert piece in text


def test_page_escapes_every_word(tmp_path):
    evil = '<script>alert("x")</script>'
    write_page(tmp_path / "index.html", evil, evil, [Section(evil, evil, [[evil]], [(evil, evil)], evil)])
    assert "<script" not in (tmp_path / "index.html").read_text()


def test_page_asks_nothing_of_a_network(tmp_path):
    write_page(tmp_path / "index.html", "t", "l", [Section("s")])
    assert "http" not in (tmp_path / "index.html").read_text()
