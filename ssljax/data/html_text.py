"""The text of an HTML page: no tags, a line for every block, nothing of scripts, menus and forms."""

import re
from html.parser import HTMLParser

VERSION = "html-1"  # another one when the text of a page may be another: it names what is cached

_LEFT_OUT = re.compile(
  "aside|button|footer|iframe|nav|noembed|noframes|noscript|plaintext|script|select|style|template|textarea|title|xmp"
)
_BLOCK = re.compile(
  "address|article|aside|blockquote|body|br|caption|center|dd|details|dialog|dir|div|dl|dt|fieldset|figcaption|figure|"
  "footer|form|h[1-6]|header|hgroup|hr|legend|li|main|menu|nav|ol|p|pre|section|summary|table|tbody|tfoot|thead|title|"
  "tr|ul"
)
_BREAK = re.compile(r"\r\n?")
_ENDLESS = re.compile(r"&#[0-9]{640,}")  # the shortest number that int() may refuse


def extract(page: str) -> str:
  """Returns the text of a page, every line ended: "" when it has none.

  A block (p, div, li, tr, br and so on) starts and ends a line. Runs of white space are one blank and empty lines are
  left out, but in <pre> both stay. References such as &auml; are decoded. Left out with all they hold are scripts,
  styles, templates, <noscript> and the like, <nav>, <aside>, <footer>, the parts of forms, and <title>, the only text
  of a <head>. A tag, a comment or an element left out that never ends reaches to the end of the page. Tags are seen one
  by one and no tree is built, so no nesting is too deep.
  """
  reader = _Reader()
  # The parser holds back what the next characters may complete; "<!>" is an empty comment and completes text. close()
  # would make text of a tag that never ends.
  reader.feed(_ENDLESS.sub("\ufffd", _BREAK.sub("\n", page)) + "<!>")
  reader.end_line()
  return "".join(reader.lines)


class _Reader(HTMLParser):
  def __init__(self):
    super().__init__()
    self.lines: list[str] = []
    self.line: list[str] = []
    self.kept = False  # in <pre>
    self.within, self.depth = "", 0  # the element left out and how many of its kind are open

  def handle_starttag(self, tag, attrs):
    if self.within:
      self.depth += tag == self.within
      return
    if _BLOCK.fullmatch(tag):
      self.line.append("\n") if self.kept else self.end_line()
    if tag in ("td", "th"):
      self.line.append(" ")
    if _LEFT_OUT.fullmatch(tag):
      self.within, self.depth = tag, 1
    self.kept = self.kept or tag == "pre"

  def handle_endtag(self, tag):
    if self.within:
      self.depth -= tag == self.within
      self.within = self.within if self.depth else ""
    elif tag == "pre" or (not self.kept and _BLOCK.fullmatch(tag)):
      self.end_line()
      self.kept = False

  def handle_data(self, data):
    if not self.within:
      self.line.append(data)

  def parse_marked_section(self, i, report=1):
    return self.parse_bogus_comment(i)  # as browsers do; Python before 3.13.6 fails on one it does not know

  def end_line(self):
    text = "".join(self.line)
    self.line.clear()
    text = text.strip("\n").rstrip() if self.kept else " ".join(text.split())
    if text.strip():
      self.lines.append(text + "\n")
