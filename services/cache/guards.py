"""Hard negatives: two questions that look alike and must not share an answer. Pure: texts in, a verdict out.

Rules: knows words and no embeddings. An embedding puts "enable roaming" and "disable roaming", "within 14 days" and
"within 30 days" next to each other; whatever is compared here must be equal before a semantic hit, however similar
two texts are: negation, numbers (digits, English and Chinese number words), units, dates, quoted strings, code-like
words, names, and the side of a pair of opposites. English and Chinese. A guard only ever turns a hit into a miss, so
that it errs on the side of asking the model.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple


class Marks(NamedTuple):
    """What is compared. `negations` counts modulo 2; `opposites` are (pair, side)."""

    text: str
    negations: int
    numbers: frozenset[str]
    units: frozenset[str]
    dates: frozenset[str]
    quoted: frozenset[str]
    names: frozenset[str]
    opposites: frozenset[tuple[str, str]]


def marks_of(text: str) -> Marks:
    """The marks of one question. Some 50 µs for a sentence."""
    plain = unicodedata.normalize("NFKC", text)
    lower = plain.lower().replace("’", "'")
    words = _WORD.findall(lower)
    negative = sum(word in _NEGATIONS or word.endswith("n't") for word in words) + _zh_negations(lower)
    return Marks(
        text=lower,
        negations=negative % 2,
        numbers=frozenset(_numbers(lower, words)),
        units=frozenset([_UNITS[word] for word in words if word in _UNITS])
        | frozenset([name for name, pattern in _ZH_UNITS if pattern.search(lower)]),
        dates=frozenset([_DATES[word] for word in words if word in _DATES])
        | frozenset([name for sign, name in _ZH_DATES.items() if sign in lower]),
        quoted=frozenset(
            [part.strip().lower() for groups in _QUOTED.findall(plain) for part in groups if part.strip()]
        ),
        names=frozenset(_names(plain)),
        opposites=frozenset(_opposites(lower, words)),
    )


def compatible(one: Marks, two: Marks) -> bool:
    """May these two share an answer, as far as words can tell?"""
    return (
        one.negations == two.negations
        and one.numbers == two.numbers
        and one.dates == two.dates
        and (one.units == two.units or not one.units or not two.units)
        and not _against(one.opposites, two.opposites)
        and all(part in two.text for part in one.quoted | one.names)
        and all(part in one.text for part in two.quoted | two.names)
    )


def _against(one: frozenset[tuple[str, str]], two: frozenset[tuple[str, str]]) -> bool:
    """Does one take a side of a pair of which the other takes only the other side?"""
    for pair, side in one ^ two:
        other = (pair, "b" if side == "a" else "a")
        if (other in one) != (other in two):
            return True
    return False


_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|「([^」]+)」|『([^』]+)』|《([^》]+)》|`([^`]+)`|‘([^’]+)’")
_DIGITS = re.compile(r"\d+(?:[.,:/-]\d+)*%?")
_NEGATIONS = frozenset(
    ["not", "no", "never", "without", "cannot", "none", "nothing", "neither", "nor", "except", "unless"]
)
_ZH_NEGATION = re.compile(r"不|没|無|无|未|别|勿|莫|禁止|除了|除非")
_ZH_NO_NEGATION = re.compile(  # questions and words that hold a negation sign and negate nothing
    r"是不是|能不能|可不可以|会不会|有没有|要不要|行不行|对不对|好不好|需不需要|不同|不好意思|无线|无忧|未来|"
    r"特别|别人|级别|类别|性别|差别|区别|识别|分别|不过|不仅|不但|莫名|未成年"
)
_ENGLISH_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        [
            *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
            *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
            "twenty",
        ]
    )
} | {
    word: str(value)
    for word, value in zip(
        ["thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million"],
        (30, 40, 50, 60, 70, 80, 90, 100, 1000, 1000000),
        strict=True,
    )
} | {"first": "1", "second": "2", "third": "3", "twice": "2", "double": "2", "half": "0.5", "dozen": "12"}  # fmt: skip
_NOT_COUNTING = frozenset({"one", "second"})  # "the one I bought", "a second": too common as other words
_ZH_DIGITS = "零〇一二两三四五六七八九十百千万亿"
_ZH_NUMBER = re.compile(
    rf"[{_ZH_DIGITS}]+(?=[个天日月年周点元块次张件台岁小分秒号楼位条%倍折级]|小时|分钟|星期)"
)
_ZH_VALUES = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_ZH_SCALES = {"十": 10, "百": 100, "千": 1000}
_UNITS = {
    word: name
    for name, words in {
        "second": "seconds secs", "minute": "minute minutes mins", "hour": "hour hours hrs", "day": "day days",
        "week": "week weeks", "month": "month months monthly", "year": "year years yearly annual annually",
        "kg": "kg kilogram kilograms kilo kilos", "g": "gram grams", "lb": "pound pounds lbs lb",
        "m": "meter meters metre metres", "km": "km kilometer kilometers kilometre kilometres",
        "mile": "mile miles", "cm": "cm centimeters", "inch": "inch inches", "foot": "feet foot",
        "usd": "dollar dollars usd", "eur": "euro euros eur", "gbp": "gbp sterling", "cny": "yuan rmb cny",
        "jpy": "yen jpy", "mb": "mb megabytes", "gb": "gb gigabytes", "tb": "tb terabytes", "c": "celsius",
        "f": "fahrenheit", "percent": "percent",
    }.items()
    for word in words.split()
}  # fmt: skip
_ZH_UNIT_SIGNS = {
    "秒": "second", "分钟": "minute", "个?小时": "hour", "[天日]": "day", "个?星期": "week", "周": "week",
    "个?月": "month", "年": "year", "公斤": "kg", "斤": "jin", "克": "g", "米": "m", "公里": "km",
    "元|块": "cny", "美元": "usd", "欧元": "eur", "日元": "jpy",
}  # fmt: skip
_ZH_UNITS = [(name, re.compile(rf"[\d{_ZH_DIGITS}]\s*(?:{sign})")) for sign, name in _ZH_UNIT_SIGNS.items()]
_DATES = {
    word: name
    for name, words in {
        "1": "january jan", "2": "february feb", "3": "march", "4": "april", "5": "may's", "6": "june", "7": "july",
        "8": "august aug", "9": "september sept", "10": "october oct", "11": "november nov", "12": "december dec",
        "mon": "monday mondays", "tue": "tuesday tuesdays", "wed": "wednesday wednesdays",
        "thu": "thursday thursdays", "fri": "friday fridays", "sat": "saturday saturdays",
        "sun": "sunday sundays", "today": "today tonight", "tomorrow": "tomorrow", "yesterday": "yesterday",
        "weekend": "weekend weekends", "weekday": "weekday weekdays", "holiday": "holiday holidays",
    }.items()
    for word in words.split()
}  # fmt: skip
_ZH_DATES = {
    "今天": "today", "今日": "today", "明天": "tomorrow", "昨天": "yesterday", "周末": "weekend", "工作日": "weekday",
    "节假日": "holiday", "周一": "mon", "周二": "tue", "周三": "wed", "周四": "thu", "周五": "fri", "周六": "sat",
    "周日": "sun", "星期一": "mon", "星期二": "tue", "星期三": "wed", "星期四": "thu", "星期五": "fri",
    "星期六": "sat", "星期日": "sun", "星期天": "sun",
}  # fmt: skip
_OPPOSITES = [
    ("enable activate on", "disable deactivate off"),
    ("open", "close shut"),
    ("add create register", "remove delete erase unregister"),
    ("increase raise higher more", "decrease reduce lower less lowering"),
    ("before", "after"),
    ("start begin resume", "stop end pause suspend"),
    ("buy purchase", "sell"),
    ("send", "receive"),
    ("upload", "download"),
    ("import", "export"),
    ("upgrade", "downgrade"),
    ("subscribe", "unsubscribe"),
    ("lock block", "unlock unblock"),
    ("install", "uninstall"),
    ("deposit", "withdraw"),
    ("login", "logout"),
    ("maximum max longest", "minimum min shortest"),
    ("inbound incoming arrival", "outbound outgoing departure"),
    ("domestic", "international abroad overseas"),
    ("male men", "female women"),
    ("adult adults", "child children kids"),
    ("debit", "credit"),
    ("monthly", "yearly annual annually"),
    ("cheapest", "fastest"),
    ("online", "offline store in-store"),
    ("free", "paid"),
    ("earliest", "latest"),
    ("join", "leave"),
    ("show", "hide"),
    ("allow", "forbid prohibit"),
    ("new", "old existing"),
]
_SIDES = {
    word: (str(number), side)
    for number, pair in enumerate(_OPPOSITES)
    for side, words in zip("ab", pair, strict=True)
    for word in words.split()
}
_ZH_OPPOSITES = [
    ("开通|开启|启用|打开|激活", "关闭|停用|禁用|注销"),
    ("增加|提高|提升|上调|添加|新增", "减少|降低|下调|删除|移除"),
    ("之前|以前", "之后|以后"),
    ("开始|恢复", "停止|结束|暂停"),
    ("购买|买入", "出售|卖出"),
    ("寄出|发送|发货", "接收|收货|签收"),
    ("上传", "下载"),
    ("导入", "导出"),
    ("升级", "降级"),
    ("订阅", "退订"),
    ("锁定|冻结", "解锁|解冻"),
    ("安装", "卸载"),
    ("存款|充值|存入", "取款|提现|取出"),
    ("登录", "退出登录|登出"),
    ("最高|最大|最长", "最低|最小|最短"),
    ("国内", "国际|国外|境外|海外"),
    ("成人", "儿童|小孩"),
    ("借记卡|储蓄卡", "信用卡"),
    ("绑定", "解绑"),
    ("线上|网上", "线下|门店|柜台"),
    ("免费", "付费|收费"),
    ("公司|企业", "个人"),
    ("新", "旧"),
    ("显示", "隐藏"),
    ("允许", "禁止"),
]
_ZH_SIDES = [
    ((f"z{number}", side), re.compile(words))
    for number, pair in enumerate(_ZH_OPPOSITES)
    for side, words in zip("ab", pair, strict=True)
]
_PHRASES = [("on", re.compile(r"\bturn(?:ing|ed)? on\b|\bswitch(?:ing)? on\b")),
            ("off", re.compile(r"\bturn(?:ing|ed)? off\b|\bswitch(?:ing)? off\b"))]  # fmt: skip
_NAME = re.compile(
    r"(?<![.!?。！？]\s)(?<!^)\b([A-Z][A-Za-z0-9+&.-]*[A-Za-z0-9+]|[A-Za-z]*\d[A-Za-z0-9-]*|[A-Z]{2,})\b"
)
_LATIN_IN_CHINESE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_COMMON_CAPITALS = frozenset(
    {"i", "i'm", "i'd", "i've", "faq", "ok", "hi", "hello", "please", "thanks", "what", "how"}
)
_CJK = re.compile(r"[\u4e00-\u9fff]")


def _zh_negations(text: str) -> int:
    return len(_ZH_NEGATION.findall(_ZH_NO_NEGATION.sub("", text)))


def _numbers(lower: str, words: list[str]) -> list[str]:
    found = [match.rstrip(".,:/-").lstrip("0") or "0" for match in _DIGITS.findall(lower)]
    found += [
        _ENGLISH_NUMBERS[word] for word in words if word in _ENGLISH_NUMBERS and word not in _NOT_COUNTING
    ]
    found += [str(_zh_number(match)) for match in _ZH_NUMBER.findall(lower)]
    return found


def _zh_number(signs: str) -> int:
    total = section = digit = 0
    for sign in signs:
        if sign in _ZH_VALUES:
            digit = _ZH_VALUES[sign]
        elif sign in _ZH_SCALES:
            section += (digit or 1) * _ZH_SCALES[sign]
            digit = 0
        else:
            total = (total + section + digit) * (10_000 if sign == "万" else 100_000_000)
            section = digit = 0
    return total + section + digit


def _names(plain: str) -> list[str]:
    if _CJK.search(plain):
        return [match.lower() for match in _LATIN_IN_CHINESE.findall(plain)]
    shouting = plain.isupper()
    found = [] if shouting else [match.lower() for match in _NAME.findall(plain)]
    return [
        name for name in found if name not in _COMMON_CAPITALS and name not in _DATES and not name.isdigit()
    ]


def _opposites(lower: str, words: list[str]) -> list[tuple[str, str]]:
    found = [_SIDES[word] for word in words if word in _SIDES and word not in ("on", "off")]
    found += [_SIDES[name] for name, phrase in _PHRASES if phrase.search(lower)]
    found += [side for side, pattern in _ZH_SIDES if pattern.search(lower)]
    return found
