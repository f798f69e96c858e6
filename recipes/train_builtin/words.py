"""Words, names, numbers and strings to fill tasks with: some from lists, many made up, so that nothing can be learned
by heart and everything must be copied.

It knows nothing of tasks. All of it is drawn from the `Random` that is handed in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

import parrot_compat


def _list(text: str, between: str = " ") -> tuple[str, ...]:
    return tuple(" ".join(text.split()).split(between))


FIRST = _list(
    """
    Ada Alan Amara Anna Bea Boris Carla Chen Dana Diego Elif Emma Farid Grace Hana Igor Ines Ivan Jana Jonas Kofi
    Lena Leo Lin Luca Maria Mateo Mei Nadia Nils Noor Olga Omar Paula Petra Priya Rosa Sam Sara Sofia Tariq Tom Uma
    Vera Wei Yara Yusuf Zoe
    """
)
LAST = _list(
    """
    Abe Baker Bauer Costa Diaz Evans Fischer Garcia Haddad Ivanov Jansen Khan Kim Larsen Lopez Meyer Moreau Nakamura
    Novak Okafor Olsen Patel Quinn Rossi Santos Schmidt Silva Singh Sato Tanaka Urban Vogel Wagner Wang Weber Young
    Zhang
    """
)
CITIES = _list(
    """
    Accra | Athens | Austin, TX | Bangkok | Berlin | Bogotá | Boston, MA | Cairo | Chicago, IL | Cape Town | Delhi |
    Denver, CO | Dublin | Genoa | Hanoi | Helsinki | Kraków | Kyoto | La Paz | Lagos | Lima | Lisbon | London | Los
    Angeles, CA | Lyon | Madrid | Malmö | Miami, FL | Montréal | Munich | Nairobi | New York, NY | Oslo | Paris |
    Porto | Portland, OR | Prague | Quito | Rio de Janeiro | Rome | San Diego, CA | San José | Santa Fe, NM |
    Seattle, WA | Seoul | Tokyo | Tunis | Turin | Vienna | Zürich
    """,
    " | ",
)
NOUNS = _list(
    """
    account album alarm animal answer article badge basket battery book bottle box bridge budget camera candle car
    chair city clock cloud coin color company computer contact contract cookie country course customer device
    document door driver email engine event farm file flight flower folder forest game garden group guitar hotel
    house invoice island item job key kitchen lamp language letter library light lock machine map meeting message
    mirror model mountain movie note number office order package page paper parcel parrot payment pen person phone
    photo pizza plane plant player poem pool price printer product profile project question radio recipe record
    report river road robot room sensor server session ship shop sign song star station stone story student table
    task team temperature ticket timer tool town train trip user valve vehicle video village wallet watch weather
    website window word
    """
)
ADJECTIVES = _list(
    """
    big blue bright broken busy calm cheap clean cold cool dark deep dry early easy empty fast final fresh full gold
    good gray great green happy heavy high hot huge large late light little local long loud low main narrow new nice
    odd old open plain quick quiet rare red rich round safe sharp short silver simple slow small smooth soft special
    steady strong sweet tall thin tiny warm weak wet white wide wild wise yellow young
    """
)
VERBS = _list(
    """
    add apply archive assign book build calculate call cancel change check clean close compute convert copy count
    create delete describe download draw edit estimate export fetch find format generate get import insert list load
    locate lock look_up make mark measure merge move open order pause plan play post print publish read record
    register remove rename rent repair replace report request reserve reset resize run save schedule search select
    send set share show sort start stop store submit summarize track translate turn_on update upload validate verify
    write
    """
)
THINGS = _list(
    """
    clouds rivers dogs horses bees stones trains books mountains gardens teapots robots owls whales cheese bread tea
    music rain snow bridges maps clocks languages numbers kites lamps ships wolves foxes frogs snails apples onions
    keys shoes hats islands volcanoes comets moons violins drums penguins
    """
)
UNITS = _list(
    """
    kg m km s min h GB MB EUR USD pieces percent degrees litres
    """
)
_ONSETS = _list(
    """
    b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p ph pl pr qu r s sc sh sk sl sm sn sp st str t th tr
    v w wh y z
    """
)
_VOWELS = _list(
    """
    a e i o u a e i o u ai au ea ee ei ia ie io oa oo ou
    """
)
_CODAS = ("",) * 10 + _list("b ck d f g l ll m n n nd ng nt p r r rd rk rt s s ss st t t th x")
_SCRIPTS: Sequence[tuple[int, int]] = (
    (0x4E00, 0x6FFF),  # Han
    (0x4E00, 0x9FA0),
    (0x3041, 0x3096),  # Hiragana
    (0x30A1, 0x30FA),  # Katakana
    (0xAC00, 0xD7A0),  # Hangul
    (0x0410, 0x0450),  # Cyrillic
    (0x03B1, 0x03CA),  # Greek
    (0x05D0, 0x05EB),  # Hebrew
    (0x0627, 0x064B),  # Arabic
    (0x0905, 0x0938),  # Devanagari
    (0x00E0, 0x0180),  # Latin with marks
    (0x1F400, 0x1F480),  # pictures
)
_HAN = (
    "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可里后小"
    "么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长知"
    "民样现分将外但身些与高意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等几很业最间"
    "新什打便位因重被走电四第门相次东政海口使教西再平真听世气信北少关并内加化由却代军产入先山五太水万市眼"
    "体别处总才场师书比住员九笑性通目华报立马命张活难神数件安表原车白应路期叫死常提感金何更反合放做系计或"
    "司利受光王果亲界及今京务制解各任至清物台象记边共风战干接它许八特觉望直服毛林题建南度统色字请交爱让认"
    "算论百吃义科怎元社术结六功指思非流每青管夫连远资队跟带花快条院变联言权往展该领传近留红治决周保达办运"
    "武半候七必城父强步完革深区即求品士转量空甚众技轻程告江语英基派满式李息写呢识极令黄德收脸钱党倒未持取"
    "设始版双历越史商千片容研像找友孩站广改议形委早房音火际则首单据导影失拿网香似斯专石若兵弟谁校读志飞观"
    "争究包组造落视济喜离坏虽"
)
_KANA_ENDS = ("株式会社", "商店", "会社", "集团", "公司", "大学", "有限公司", "銀行")


def made_up(rng: Random, syllables: int | None = None) -> str:
    """A word that nobody knows, in small letters."""
    parts = [
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        for _ in range(syllables or rng.choice((1, 2, 2, 2, 3)))
    ]
    return "".join(parts)


def word(rng: Random) -> str:
    return rng.choice(rng.choice((NOUNS, ADJECTIVES, NOUNS, THINGS))) if rng.random() < 0.6 else made_up(rng)


@cache
def _pieces() -> tuple[list[str], list[str]]:
    path = Path(parrot_compat.__file__).parent / "gpu" / "models" / "builtin_tiny" / "tokenizer.json"
    texts = {piece.replace("Ġ", " ").replace("Ċ", "\n") for piece in json.loads(path.read_text())["model"]["vocab"]}
    plain = sorted(text for text in texts if text.isascii() and text.strip() and not text.startswith("<|"))
    return [text for text in plain if text.isalpha() and len(text) > 2], plain


def piece(rng: Random) -> str:
    """A word, or a part of one, that is one token: each as often as any other. Most stand in few texts or in none, and
    what was never met cannot be copied."""
    return rng.choice(_pieces()[0])


def any_piece(rng: Random) -> str:
    """…or punctuation, or what has blanks in it."""
    return rng.choice(_pieces()[1])


def noun(rng: Random) -> str:
    return rng.choice(NOUNS) if rng.random() < 0.75 else made_up(rng)


def name(rng: Random) -> str:
    """A person's."""
    first = rng.choice(FIRST) if rng.random() < 0.6 else made_up(rng).capitalize()
    if rng.random() < 0.25:
        return first
    return first + " " + (rng.choice(LAST) if rng.random() < 0.6 else made_up(rng).capitalize())


def city(rng: Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(CITIES)
    made = made_up(rng, 2).capitalize()
    if rng.random() < 0.3:
        made = rng.choice(("San", "New", "Port", "Saint", "El", "Los", "Fort", "Lake", "North")) + " " + made
    return made + (", " + chr(65 + rng.randrange(26)) + chr(65 + rng.randrange(26)) if rng.random() < 0.35 else "")


def foreign(rng: Random) -> str:
    """A name in another script."""
    kind = rng.random()
    if kind < 0.45:
        return "".join(rng.choice(_HAN) for _ in range(rng.randrange(2, 7)))
    low, high = rng.choice(_SCRIPTS)
    text = "".join(chr(rng.randrange(low, high)) for _ in range(rng.randrange(2, 9)))
    return text + (rng.choice(_KANA_ENDS) if kind < 0.65 else "")


def title(rng: Random) -> str:
    """A few words, as a title or a company has them."""
    words = [word(rng).capitalize() for _ in range(rng.randrange(1, 4))]
    return " ".join(words) + (rng.choice((" Group", " Ltd", " Inc", " GmbH", " & Sons")) if rng.random() < 0.2 else "")


def identifier(rng: Random) -> str:
    parts = [word(rng) for _ in range(rng.choice((1, 2, 2, 3)))]
    style = rng.random()
    if style < 0.7:
        return "_".join(parts)
    return (
        "".join(part.capitalize() for part in parts) if style < 0.9 else parts[0] + "".join(map(str.title, parts[1:]))
    )


def number(rng: Random) -> int:
    return rng.randrange(10 ** rng.choice((1, 1, 2, 2, 3, 4, 6)))


def decimal(rng: Random) -> float:
    return round(rng.random() * 10 ** rng.choice((1, 2, 3)), rng.choice((1, 2)))


def date(rng: Random) -> str:
    return f"{rng.randrange(1950, 2040)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"


def code(rng: Random) -> str:
    """An order number or the like."""
    letters = "".join(chr(65 + rng.randrange(26)) for _ in range(rng.randrange(1, 4)))
    return f"{letters}{rng.choice(('-', '', '_', '/'))}{rng.randrange(10 ** rng.randrange(2, 6))}"


def email(rng: Random) -> str:
    person = made_up(rng) + rng.choice((".", "_", "")) + made_up(rng, 1)
    return f"{person}@{made_up(rng)}.{rng.choice(('com', 'org', 'net', 'io', 'example'))}"


def phrase(rng: Random, most: int = 6) -> str:
    """Words in small letters, as people write notes."""
    return " ".join(word(rng) for _ in range(rng.randrange(2, most + 1)))
