"""The pages that describe the API in a browser: Swagger UI at `/docs`, ReDoc at `/redoc`; `/` leads to the first, or to the console.

Invariant: they load nothing from another host, so they work without internet. Scripts, styles and pictures come from the package
`fastapi-standalone-docs`, which is found but not imported, and the header Content-Security-Policy has browsers refuse anything else.
"""

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

DOCS, REDOC = "/docs", "/redoc"
PACKAGE = "fastapi_standalone_docs"
# Both pages start with a script in the page itself, and ReDoc searches in a worker that it makes itself.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "worker-src 'self' blob:; frame-ancestors 'none'"
)


def add_pages(api: FastAPI, home: str = DOCS) -> None:
    """Add the pages and their files to an app that has none; `home` is the path that `/` leads to."""

    async def to_home(request: Request) -> RedirectResponse:
        return RedirectResponse(f"{_root(request)}{home}")

    api.add_route("/", to_home, include_in_schema=False)
    api.add_route(DOCS, _swagger_ui, include_in_schema=False)
    api.add_route(REDOC, _redoc, include_in_schema=False)
    # ReDoc's picture must lie under its page; the mounts stand after the pages, whose paths they begin with.
    for path, folder in ((f"{DOCS}/icon", "fastapi"), (DOCS, "swagger"), (REDOC, "redoc")):
        api.mount(path, StaticFiles(directory=_static() / folder))


def _static() -> Path:
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "static"


async def _swagger_ui(request: Request) -> HTMLResponse:
    root = _root(request)
    page = get_swagger_ui_html(
        openapi_url=f"{root}{request.app.openapi_url}",
        title=request.app.title,
        swagger_js_url=f"{root}{DOCS}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{DOCS}/swagger-ui.css",
        swagger_favicon_url=f"{root}{DOCS}/icon/favicon.png",
        # Its default sends the address of the document to a validator on the internet.
        swagger_ui_parameters={"validatorUrl": None},
    )
    page.headers["Content-Security-Policy"] = POLICY
    return page


async def _redoc(request: Request) -> HTMLResponse:
    root = _root(request)
    page = get_redoc_html(
        openapi_url=f"{root}{request.app.openapi_url}",
        title=request.app.title,
        redoc_js_url=f"{root}{REDOC}/redoc.standalone.js",
        redoc_favicon_url=f"{root}{DOCS}/icon/favicon.png",
        with_google_fonts=False,
    )
    page.headers["Content-Security-Policy"] = POLICY
    return page


def _root(request: Request) -> str:
    """The path under which a proxy serves this app, without a slash at its end."""
    return str(request.scope.get("root_path", "")).rstrip("/")
