"""Texts as a stranger would write them into a store, to have them run, drawn or followed by whoever looks."""

_PATTERNS = (
    "<script>alert('{}')</script>",
    "</script><script>alert('{}')</script>",
    "<img src=x onerror=alert('{}')>",
    "<svg onload=alert('{}')>",
    "<iframe src=//evil.example/{}></iframe>",
    "\"><b onmouseover=alert('{}')>",
    "'><a href=javascript:alert('{}')>x</a>",
    "<style>*{{display:none}}</style>{}",
    "<!-- {} -->",
    "&lt;b&gt;{}&lt;/b&gt;<b>",
    "[{}](http://evil.example)",
    "[{}](javascript:alert(1))",
    "![{}](http://evil.example/pixel.png)",
    "<http://evil.example/{}>",
    "[{}]: http://evil.example",
    "**{}** _x_ ~~y~~",
    "`{}` $x^2$ $$y$$",
    "# {}",
    "| {} | x |",
    ":red[{}] :smile: :material/home:",
    "../../../../etc/passwd {}",
    "..\\..\\windows\\{}",
    "file:///etc/passwd?{}",
    "models:/other@champion {}",
    "{}'; DROP TABLE runs; --",
    "{{{{ {} }}}} {{% x %}} ${{x}}",
    "__import__('os').system('{}')",
    '=HYPERLINK("http://evil.example";"{}")',
    "{}\u202egnp.exe\u2066",
    "{}<br/>%(x)s %s {{0}}",
)
MARKS = tuple(f"h{index:02}x" for index in range(len(_PATTERNS)))
"""A word in each, by which it is found again."""
HOSTILE_TEXTS = tuple(pattern.format(mark) for pattern, mark in zip(_PATTERNS, MARKS, strict=True))
