# SPDX-License-Identifier: Apache-2.0
"""Who drives: one page at a time, and only while it is heard of. Pure."""
from typing import Optional

SILENCE_S = 0.3  # of a page that asked for motion: its robot is stopped
IDLE_S = 10.0  # of the page that drives: the controls are free again


class Controls:
    """
    The controls of one robot. Times are steady wall time in seconds.

    Free controls go to the page that uses them first. They are held until it gives them up,
    leaves, or does nothing for ``IDLE_S``; another page may take them over by asking for it.
    """

    def __init__(self) -> None:
        self.holder: Optional[str] = None  # id of the page that drives
        self.since_s = 0.0
        self._input_s = 0.0
        self._moves = False

    def use(self, page: str, now_s: float, moves: Optional[bool] = None) -> bool:
        """
        Let a page do something, if it may.

        :param page: id of the page
        :param now_s: now
        :param moves: it asks for motion that goes on until it says otherwise; None: for none
        :return: whether it holds the controls now
        """
        self.expire(now_s)
        if self.holder is None:
            self._give(page, now_s)
        if self.holder != page:
            return False
        self._input_s = now_s
        if moves is not None:
            self._moves = moves
        return True

    def take(self, page: str, now_s: float) -> bool:
        """
        Hand the controls over to a page.

        :return: whether they were another page's; its robot has to be stopped then
        """
        if self.holder == page:
            return False
        was_held = self.holder is not None
        self._give(page, now_s)
        return was_held

    def release(self, page: str) -> bool:
        """
        Give the controls up, or lose them with the page.

        :return: whether they were this page's; its robot has to be stopped then
        """
        if self.holder != page:
            return False
        self.holder, self._moves = None, False
        return True

    def is_silent(self, now_s: float) -> bool:
        """Tell, once, that the page which asked for motion is not heard of any more."""
        if not self._moves or now_s - self._input_s <= SILENCE_S:
            return False
        self._moves = False
        return True

    def expire(self, now_s: float) -> None:
        """Free the controls of a page that does nothing."""
        if self.holder is not None and now_s - self._input_s > IDLE_S:
            self.holder, self._moves = None, False

    def _give(self, page: str, now_s: float) -> None:
        self.holder, self.since_s, self._input_s, self._moves = page, now_s, now_s, False
