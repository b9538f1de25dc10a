"""Failures of object stores, as people are told them."""

from server.catalogs.object_errors import told


def test_no_query_of_a_url_is_told_and_http_that_is_not_allowed_is_explained() -> None:
    signed = OSError("Error performing GET https://shop.example/items.catalog?X-Amz-Signature=0a1b in 1ms.\nDebug source: ?0a1b")
    assert told(signed) == "Error performing GET https://shop.example/items.catalog in 1ms"
    assert told(OSError("HTTP error: builder error")) == "HTTP error: builder error (a URL of http:// needs AWS_ALLOW_HTTP=true)"
