"""The pages that describe the API work without internet: whatever they name is on the server itself."""

import re
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from server.http.pages import add_pages

PAGES = ["/docs", "/redoc"]
# What a page or a style sheet has a browser load: attributes of tags, and url() of style sheets.
LOADED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["']([^"']+)|url\(["']?([^"')]+)""")


def client(root_path: str = "") -> httpx.AsyncClient:
    api = FastAPI(title="pages", docs_url=None, redoc_url=None)
    add_pages(api)
    return httpx.AsyncClient(transport=httpx.ASGITransport(api, root_path=root_path), base_url="http://own.test")


def loaded(text: str, base: str) -> list[str]:
    """The addresses of what a browser loads for a page or a style sheet."""
    return [urljoin(base, url) for found in LOADED.findall(text) if not (url := found[0] or found[1]).startswith("data:")]


def test_what_is_looked_for_is_found():
    text = """<link rel="x" href="https://a.test/b.css"><script src='c.js'></script> d { background: url(//e.test/f.png) url("data:,") }"""
    assert loaded(text, "http://own.test/docs") == ["https://a.test/b.css", "http://own.test/c.js", "http://e.test/f.png"]


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_and_what_it_loads_name_no_other_host(path: str):
    """Also what the loaded files load in turn."""
    waiting, seen = [f"http://own.test{path}"], set()
    async with client() as pages:
        while waiting:
            address = waiting.pop()
            seen.add(address)
            assert urlsplit(address).netloc == "own.test", address
            response = await pages.get(address)
            assert response.status_code == 200, address
            if "javascript" not in response.headers["content-type"] and not address.endswith((".png", ".svg")):
                waiting += [each for each in loaded(response.text, address) if each not in seen]
    # The page, its script and its icon.
    assert len(seen) >= 3


@pytest.mark.parametrize("path", PAGES)
async def test_browsers_are_told_to_load_nothing_from_another_host(path: str):
    async with client() as pages:
        policy = (await pages.get(path)).headers["content-security-policy"]
    sources = {source for part in policy.split("; ") for source in part.split()[1:]}
    assert policy.startswith("default-src 'self'; ")
    assert sources <= {"'self'", "'unsafe-inline'", "'none'", "data:", "blob:"}


async def test_what_the_scripts_load_beside_the_page_is_there():
    """ReDoc's script builds the address of a logo itself: elsewhere it lies at a public host."""
    async with client() as pages:
        script = (await pages.get("/redoc/redoc.standalone.js")).text
        assert "cdn.redoc.ly" not in script
        assert 'window.location.pathname+"/logo-mini.svg"' in script
        assert (await pages.get("/redoc/logo-mini.svg")).status_code == 200
        assert '"validatorUrl": null' in (await pages.get("/docs")).text


@pytest.mark.parametrize("root_path", ["", "/behind/proxy"])
async def test_the_root_leads_to_the_docs(root_path: str):
    async with client(root_path) as pages:
        response = await pages.get(f"{root_path}/")
        assert (response.status_code, response.headers["location"]) == (307, f"{root_path}/docs")
        page = (await pages.get(f"{root_path}/docs")).text
    assert f'src="{root_path}/docs/swagger-ui-bundle.js"' in page
    assert f"'{root_path}/openapi.json'" in page or f'"{root_path}/openapi.json"' in page
