"""Whoever waits for news is woken by the next, once, and a waiter that leaves disturbs nobody."""

from __future__ import annotations

import asyncio

import pytest

from parrot_compat.core.news import News


async def test_all_who_wait_are_woken_and_one_that_has_left_disturbs_nobody() -> None:
    news = News()
    news.tell()  # nobody waits: it is not kept
    waiting = [asyncio.create_task(news.heard()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    waiting[1].cancel()
    await asyncio.sleep(0)
    news.tell()
    await asyncio.gather(waiting[0], waiting[2])
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]


async def test_nothing_is_kept_of_those_who_left() -> None:
    news = News()
    for _ in range(100):
        waiting = asyncio.create_task(news.heard())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert news._waiting == []


async def test_news_wake_once() -> None:
    news, woken = News(), 0

    async def follow() -> None:
        nonlocal woken
        while True:
            await news.heard()
            woken += 1

    follower = asyncio.create_task(follow())
    for told in range(3):
        await asyncio.sleep(0)
        assert woken == told
        news.tell()
        news.tell()
        await asyncio.sleep(0)
    follower.cancel()
    assert woken == 3
