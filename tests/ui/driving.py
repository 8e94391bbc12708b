"""Driving the interface by keys and reading its screen."""

import time


def screen(app):
    """What a person sees, line by line."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def until(pilot, condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, screen(pilot.app)
        await pilot.pause(0.01)


async def send(pilot, text):
    pilot.app.composer.insert(text)
    await pilot.press("enter")


async def finished(pilot, text=""):
    """The turn is over and `text` is on the screen."""
    app = pilot.app
    await until(pilot, lambda: not app.session.busy and text in screen(app))


async def asked(pilot):
    await until(pilot, lambda: pilot.app.composer._asked_at and "yes, once" in screen(pilot.app))
