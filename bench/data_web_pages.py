"""Web pages written for `data_web.py`: articles in English and Persian, each in layouts that sites use.

The extraction was chosen on other pages; these say whether the choice holds. The last five layouts were added
because the first seven, read equally well either way, could not say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import escape


@dataclass(frozen=True, slots=True)
class Article:
    """What a page is about, and what stands around it.

    Args:
        language: en or fa.
        title: its heading.
        parts: paragraphs; one that begins with "# " is a heading, with "- " an item of a list.
        menu: words of the navigation.
        aside: teasers, notices and small print.

    """

    language: str
    title: str
    parts: tuple[str, ...]
    menu: tuple[str, ...]
    aside: tuple[str, ...]

    @property
    def truth(self) -> str:
        """The words that a reader came for."""
        return "\n".join([self.title, *(part.lstrip("#- ") for part in self.parts)])


_EN_MENU = ("Home", "Markets", "Garden", "Recipes", "About us", "Contact", "Sign in", "Newsletter")
_EN_ASIDE = (
    "We use cookies to remember your basket and to count visits. Accept all or choose for yourself.",
    "Read next: Seven chairs that survive a wet balcony, and two that do not",
    "Most read this week: The bakery that opens at midnight",
    "Subscribe for four pounds a month and read without advertisements",
    "© 2026 The Hillside Courier. All rights reserved. Imprint, privacy, terms of use",
)
_FA_MENU = ("خانه", "خبرها", "باغبانی", "آشپزی", "دربارهٔ ما", "تماس با ما", "ورود", "خبرنامه")
_FA_ASIDE = (
    "این وب‌سایت از کوکی استفاده می‌کند تا سبد خرید شما را به یاد داشته باشد. می‌پذیرم",
    "بیشتر بخوانید: هفت صندلی که زیر باران ایوان سالم می‌مانند",
    "پربازدیدهای هفته: نانوایی‌ای که نیمه‌شب باز می‌شود",
    "با ماهی چهل هزار تومان مشترک شوید و بدون آگهی بخوانید",
    "تمام حقوق این وب‌سایت برای پیک دامنه محفوظ است. حریم خصوصی و شرایط استفاده",
)

ARTICLES = (
    Article(
        "en",
        "How a village brought its mill back to life",
        (
            "The wheel had stood still for forty-one years when the first of the volunteers climbed down "
            "into the pit with a shovel. What they found was two metres of silt, a bicycle, and an oak "
            "axle that was far less rotten than anybody had dared to hope.",
            "Nobody in the village had ever seen the mill at work except Agnes Holt, who is ninety-three "
            "and remembers the noise. She says it was the sound of the afternoon: a slow knocking that "
            "stopped when the miller went to his tea, and began again when the kettle was empty.",
            "# Wood before money",
            "The trust had asked an engineer for an estimate, and the sum at the bottom of the page was "
            "larger than the price of every house in the lane together. So they began with what cost "
            "nothing. Three farmers gave fallen trees, the school gave its workshop on Saturdays, and a "
            "retired wheelwright gave eleven months of his life.",
            "- Forty-eight paddles, cut from larch",
            "- Two hundred and six wooden cogs, each shaped by hand",
            "- One bearing of cast iron, the only part that was bought new",
            "On the last Sunday of September the sluice was opened by a hand's breadth. The wheel "
            "shivered, seemed to think about it, and turned. There is now flour in paper bags on the "
            "counter of the shop, coarse and a little grey, and it sells out before noon.",
        ),
        _EN_MENU,
        _EN_ASIDE,
    ),
    Article(
        "en",
        "Reading a weather map without a forecast",
        (
            "A weather map looks like the thumbprint of a giant, and most people skip it for the little "
            "suns and clouds below. That is a pity, because four lines and two letters tell you nearly "
            "all that the suns and clouds are made from.",
            "Begin with the closed curves. Each joins places where the air presses down equally hard. "
            "Where the curves crowd together the wind is strong, and where they lie far apart a candle "
            "would burn straight in the garden.",
            "# The two letters",
            "An L marks the bottom of a hollow in the air. Around it, north of the equator, the wind runs "
            "against the clock and a little inwards, so that air heaps up in the middle, rises, cools and "
            "lets go of its water. An H marks a hill, from which air sinks and spreads, and sinking air "
            "is dry.",
            "# The line with teeth",
            "Blue teeth show cold air digging under warm air, red half circles show warm air gliding up "
            "over cold. The first brings an hour of heavy rain and a clear evening; the second a day of "
            "drizzle that never quite makes up its mind.",
            "Stand with your back to the wind, and the low pressure is to your left. A Dutch professor "
            "wrote that down in the middle of the nineteenth century, and it has not failed since.",
        ),
        _EN_MENU,
        _EN_ASIDE,
    ),
    Article(
        "fa",
        "قناتی که دوباره آب داد",
        (
            "پیرمرد چراغ را پایین گرفت و گفت گوش کنید. از ته چاه صدایی می‌آمد که بیست سال بود هیچ‌کس در "
            "ده نشنیده بود: صدای آبی که آرام روی سنگ می‌لغزد.",
            "قنات روستا را پدربزرگ‌های پدربزرگ‌هایشان کنده بودند و تا وقتی که چاه‌های عمیق آمدند، همهٔ "
            "باغ‌ها از آن سیراب می‌شد. بعد سطح آب پایین رفت، دو میله فرو ریخت و مادرچاه را خاک گرفت.",
            "# اول از همه، خاک",
            "جوان‌های ده تصمیم گرفتند به‌جای آن‌که منتظر بودجه بمانند، خودشان دست به کار شوند. هر هفته "
            "جمعه‌ها سی نفر می‌آمدند؛ نیمی پایین می‌رفتند و نیمی دلوها را بالا می‌کشیدند. در پنج ماه "
            "چهارصد متر از راهرو پاک شد.",
            "- بازسازی سه میله با آجر محلی",
            "- کاشت درخت گز در مسیر سیلاب",
            "- بستن چهار چاه غیرمجاز با رضایت صاحبانشان",
            "کارشناسی که از شهر آمده بود می‌گفت آبدهی قنات هنوز یک‌سوم گذشته است، اما اگر چاه‌ها بسته "
            "بمانند، تا ده سال دیگر به نصف می‌رسد. پیرمرد که حرف‌های او را می‌شنید، خندید و گفت ما "
            "عجله‌ای نداریم؛ آب هم ندارد.",
        ),
        _FA_MENU,
        _FA_ASIDE,
    ),
    Article(
        "fa",
        "چطور خوشنویسی را از نو شروع کنیم",
        (
            "بیشتر ما خوشنویسی را با مشق‌های مدرسه به یاد می‌آوریم: قلمی که جوهرش همیشه پخش می‌شد و معلمی "
            "که می‌گفت دستت را نلرزان. اما می‌شود در بزرگسالی هم با حوصله و بدون ترس از نمره دوباره آغاز "
            "کرد.",
            "برای شروع به سه چیز بیشتر نیاز ندارید: قلم‌نی متوسط، دوات کوچکی که لیقه داشته باشد و کاغذ "
            "گلاسه. گران‌ترین قلم‌ها هم اگر درست تراشیده نشوند، خط خوبی نمی‌دهند.",
            "# روزی پانزده دقیقه",
            "استادها می‌گویند دست با تکرار یاد می‌گیرد نه با فهمیدن. پس به‌جای این‌که آخر هفته سه ساعت "
            "بنویسید، هر روز پانزده دقیقه وقت بگذارید و فقط یک حرف را تمرین کنید. تا وقتی که «ب» "
            "کشیده‌تان صاف نشده، سراغ «س» نروید.",
            "# نگاه کردن هم تمرین است",
            "نیمی از خوشنویسی دیدن است. سطرهای استادان قدیم را جلوی خود بگذارید و پیش از آن‌که بنویسید، "
            "نفس بکشید و بشمارید که هر کشیده چند نقطه است و سفیدی میان کلمه‌ها کجا بیشتر شده است.",
            "خواهید دید که پس از چند ماه، خط روزمره‌تان هم آرام‌تر شده است. شاید این تنها هنری باشد که "
            "آدم را وادار می‌کند کندتر زندگی کند.",
        ),
        _FA_MENU,
        _FA_ASIDE,
    ),
)


def _body(parts: tuple[str, ...], heading: str = "h2", paragraph: str = "p") -> str:
    """The article's parts as elements; items that follow one another make one list."""
    out: list[str] = []
    for part in parts:
        item = part.startswith("- ")
        if out and out[-1] == "</ul>" and item:
            out.pop()
        elif item:
            out.append("<ul>")
        if item:
            out += [f"<li>{escape(part[2:])}</li>", "</ul>"]
        elif part.startswith("# "):
            out.append(f"<{heading}>{escape(part[2:])}</{heading}>")
        else:
            out.append(f"<{paragraph}>{escape(part)}</{paragraph}>")
    return "\n".join(out)


def _links(words: tuple[str, ...], tag: str = "li") -> str:
    return "".join(f'<{tag}><a href="/{number}">{word}</a></{tag}>' for number, word in enumerate(words))


def _document(article: Article, body: str) -> str:
    turned = ' dir="rtl"' if article.language == "fa" else ""
    return (
        f'<!DOCTYPE html><html lang="{article.language}"{turned}><head><meta charset="utf-8">'
        f"<title>{article.title}</title><style>p {{ margin: 1em }}</style></head><body>{body}</body></html>"
    )


def modern(article: Article) -> str:
    """The elements of HTML for what they mean; a cookie notice on top."""
    return f"""
    <div id="cookie-notice" role="dialog"><p>{article.aside[0]}</p></div>
    <header><nav><ul>{_links(article.menu)}</ul></nav></header>
    <main><article><h1>{article.title}</h1>{_body(article.parts)}</article></main>
    <aside><h2>{article.aside[1]}</h2><p>{article.aside[2]}</p></aside>
    <footer><p>{article.aside[4]}</p></footer>"""


def divisions(article: Article) -> str:
    """Nothing but div, with the names that a content management system gives."""
    return f"""
    <div class="topbar">{_links(article.menu, "span")}</div>
    <div class="wrapper">
      <div class="sidebar"><div class="widget">{article.aside[1]}</div>
        <div class="widget">{article.aside[2]}</div></div>
      <div class="post-content"><h1 class="entry-title">{article.title}</h1>{_body(article.parts, "h3")}</div>
    </div>
    <div class="bottom">{article.aside[4]}</div>"""


def tables(article: Article) -> str:
    """A page laid out by a table, as in the nineties."""
    menu = "<br>".join(f'<a href="/{number}">{word}</a>' for number, word in enumerate(article.menu))
    return f"""
    <table width="800"><tr><td colspan="2"><h1>{article.title}</h1></td></tr>
    <tr><td width="150">{menu}</td><td>{_body(article.parts, "h3")}</td></tr>
    <tr><td colspan="2"><small>{article.aside[4]}</small></td></tr></table>"""


def manual(article: Article) -> str:
    """A documentation site: a long side bar of sections, and links to the pages before and after."""
    parts = [tuple(f"{word} {number}" for word in article.menu) for number in range(1, 5)]
    return f"""
    <div class="toc-tree" role="navigation">{"".join(f"<ul>{_links(part)}</ul>" for part in parts)}</div>
    <div class="document" role="main"><section id="top">
      <h1>{article.title}<a class="headerlink" href="#top">¶</a></h1>{_body(article.parts)}</section></div>
    <div class="pager"><a href="/before">{article.menu[1]}</a> <a href="/after">{article.menu[2]}</a></div>"""


def blog(article: Article) -> str:
    """A blog: what readers wrote below is not the article."""
    comments = "".join(
        f'<li class="comment"><b>reader {number}</b><p>{text}</p></li>'
        for number, text in enumerate(article.aside[1:4])
    )
    return f"""
    <div id="header"><h2><a href="/">{article.menu[0]}</a></h2></div>
    <div class="post hentry"><h1>{article.title}</h1><div class="meta">12 May 2026</div>
      <div class="entry">{_body(article.parts)}</div></div>
    <div id="comments"><h3>3</h3><ol class="commentlist">{comments}</ol></div>
    <div id="sidebar"><ul>{_links(article.menu)}</ul></div>"""


def news(article: Article) -> str:
    """A newspaper: an advertisement between the paragraphs, more articles after the last."""
    half = len(article.parts) // 2
    teasers = "".join(
        f'<div class="teaser"><a href="/{number}"><h3>{text}</h3></a></div>'
        for number, text in enumerate(article.aside[1:3])
    )
    return f"""
    <nav class="menu">{_links(article.menu, "div")}</nav>
    <div class="article"><h1>{article.title}</h1><div class="article-body">{_body(article.parts[:half])}
      <div class="advertisement"><p>{article.aside[3]}</p></div>{_body(article.parts[half:])}</div></div>
    <div class="related">{teasers}</div>
    <div class="footer"><p>{article.aside[4]}</p></div>"""


def broken(article: Article) -> str:
    """Text in a div with line breaks only, and elements that are never closed."""
    text = "<br><br>".join(escape(part.lstrip("#- ")) for part in article.parts)
    return f"""
    <center><font size="5">{article.title}</font></center><hr><div id="content">{text}<p><hr>
    <font size="1">{" | ".join(article.menu)}<p>{article.aside[4]}"""


def application(article: Article) -> str:
    """What a script builds: no element says what it is for, names are made by a machine."""

    def box(text: str) -> str:
        return f'<div class="x7f2"><span>{text}</span></div>'

    links = "".join(box(f'<a href="/{word}">{word}</a>') for word in article.menu)
    parts = "".join(box(escape(part.lstrip("#- "))) for part in article.parts)
    return f"""
    <div id="root"><div class="z88">{links}</div><div class="z91">{box(article.title)}{parts}</div>
    <div class="z93"><span>{article.aside[4]}</span></div></div>"""


def misnamed(article: Article) -> str:
    """The article stands where others put what is beside it."""
    return f"""
    <div class="menu">{_links(article.menu, "span")}</div>
    <div class="footer-wrapper"><div id="sidebar-right" class="comment-box"><h1>{article.title}</h1>
      {_body(article.parts)}</div></div>
    <div class="content"><p>{article.aside[1]}</p><p>{article.aside[2]}</p></div>"""


def brief(article: Article) -> str:
    """A few words, and much around them."""
    more = "".join(f"<li><h4>{text}</h4><p>{text}</p></li>" for text in article.aside[1:4] * 4)
    return f"""
    <header><ul>{_links(article.menu)}</ul></header>
    <div class="story"><h1>{article.title}</h1>{_body(article.parts)}</div>
    <section class="recommended"><ul>{more}</ul></section><footer>{article.aside[4]}</footer>"""


def discussed(article: Article) -> str:
    """Far more is said below the article than in it."""
    said = "".join(
        f'<div class="comment" id="comment-{number}"><p>{text} {text} {text}</p></div>'
        for number, text in enumerate(article.aside * 6)
    )
    return f"""
    <nav><ul>{_links(article.menu)}</ul></nav>
    <div class="post"><h1>{article.title}</h1>{_body(article.parts)}</div>
    <div class="comments-area">{said}</div>"""


def written(article: Article) -> str:
    """Plain text in a page."""
    text = "\n\n".join(escape(part.lstrip("#- ")) for part in article.parts)
    return f"""
    <ul>{_links(article.menu)}</ul><h1>{article.title}</h1><pre>{text}</pre><p>{article.aside[4]}</p>"""


_SHORT = {"brief": 1, "discussed": 3}  # paragraphs
LAYOUTS: dict[str, Callable[[Article], str]] = {
    layout.__name__: layout
    for layout in (
        modern, divisions, tables, manual, blog, news, broken,
        application, misnamed, brief, discussed, written,  # hard ones
    )
}  # fmt: skip


def pages() -> Iterator[tuple[str, str, bytes, str]]:
    """Yield name, language, bytes and true text of every article in every layout."""
    for number, article in enumerate(ARTICLES):
        for name, layout in LAYOUTS.items():
            shown = replace(article, parts=article.parts[: _SHORT.get(name)])
            page = _document(article, layout(shown)).encode()
            yield f"{article.language}-{number}-{name}", article.language, page, shown.truth
