"""Reading a vendor's paged list, and never longer than was asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from devices.vendors.client import Api, Failed
from devices.vendors.normalised import Document


@dataclass(frozen=True, slots=True)
class PagedList:
    """How a vendor pages: the key its rows stand under, and the parameter that takes the answer's `next_token`."""

    rows: str
    token_parameter: str

    async def read(
        self,
        api: Api,
        path: str,
        params: dict[str, str],
        *,
        token: str = "",
        pages: int,
        enough: Callable[[list[Any]], bool] = lambda _rows: False,
    ) -> tuple[list[Any], str]:
        """The rows of up to `pages` pages (at least one) from `token` on, and the token of the next, "" at the end.

        Stops before that when the rows so far are `enough`. Raises `Failed` when a page names itself as the next.
        """
        rows: list[Any] = []
        for _ in range(max(pages, 1)):
            asked = params | {self.token_parameter: token} if token else params
            page, following = self.parts(await api.get(path, asked), path)
            if following and following == token:
                raise bad_answer(f"{path} names the page it is on as the next one")
            rows += page
            token = following
            if not token or enough(rows):
                break
        return rows, token

    def parts(self, answer: object, path: str) -> tuple[list[Any], str]:
        page = object_of(answer, path)
        rows, following = page.get(self.rows), page.get("next_token") or ""
        if not isinstance(rows, list):
            raise bad_answer(f"{path} answered without a list of {self.rows}")
        if not isinstance(following, str):
            raise bad_answer(f"{path} answered with a next_token that is not a text")
        return rows, following


def object_of(answer: object, path: str) -> Document:
    """The vendor's answer, if it is a JSON object. Raises `Failed` for any other."""
    if not isinstance(answer, dict):
        raise bad_answer(f"{path} answered with something other than an object")
    return answer


def bad_answer(reason: str) -> Failed:
    return Failed(reason, error_class="bad_answer")
