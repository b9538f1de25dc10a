"""What a URL says of a Redis; what is refused is tested with the contract of histories."""

import pytest

from server.redis.url import Login, RedisUrl, Topology


def test_one_server():
    url = RedisUrl.parse("redis://user:pa%2Fss@films.example:6380/3?wait_replicas=2")
    assert (url.topology, url.nodes, url.database, url.wait_replicas) == (Topology.SINGLE, (("films.example", 6380),), 3, 2)
    assert (url.login, url.address) == (Login("user", "pa/ss"), "films.example:6380")
    assert "pa/ss" not in repr(url)


def test_sentinels_name_their_master_and_have_a_port_of_their_own():
    url = RedisUrl.parse("redis+sentinel://:secret@one,two:26380,[::1]:5/films/2")
    assert url.nodes == (("one", 26379), ("two", 26380), ("::1", 5))
    assert (url.service, url.database, url.login, url.sentinel_login) == ("films", 2, Login(None, "secret"), Login())
    assert url.address == "films@one:26379,two:26380,::1:5"


def test_sentinels_have_a_login_of_their_own():
    url = RedisUrl.parse("redis+sentinel://:a+b@one/films?sentinel_username=watch&sentinel_password=c+d%26%20e&wait_replicas=1")
    assert (url.login, url.sentinel_login) == (Login(None, "a+b"), Login("watch", "c+d& e"))
    assert "c+d" not in repr(url)


def test_passwords_may_be_in_files():
    url = RedisUrl.parse("redis+sentinel://user@one/films?password_file=/run/a&sentinel_password_file=/run/b")
    assert (url.login, url.sentinel_login) == (Login("user", None, "/run/a"), Login(None, None, "/run/b"))
    assert RedisUrl.parse("redis+cluster://one?password_file=/run/a").login == Login(None, None, "/run/a")


def test_a_cluster_by_tls():
    url = RedisUrl.parse("rediss+cluster://one,two:7000?ssl_check_hostname=false&ssl_ca_certs=/ca.pem")
    assert (url.topology, url.tls, url.nodes) == (Topology.CLUSTER, True, (("one", 6379), ("two", 7000)))
    assert url.tls_options == {"ssl_check_hostname": False, "ssl_ca_certs": "/ca.pem"}


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis+sentinel://:hunter2@one,two", "does not name the master"),
        ("redis+sentinel://:hunter2@one/films/x", "does not end in a database number"),
        ("redis+sentinel://:hunter2@one/films/1/2", "does not end in a database number"),
        ("redis+cluster://:hunter2@one/1", "database 0 only"),
        ("redis+cluster://:hunter2@one?wait_replicas=1", "unknown option"),
        ("redis://:hunter2@one?sentinel_password=hunter2", "unknown option"),
        ("redis://:hunter2@one?password_file=/run/a", "not both"),
        ("redis+sentinel://one/films?sentinel_password=hunter2&sentinel_password_file=/run/a", "not both"),
        ("redis://:hunter2@one?wait_replicas=all", "is a number of replicas"),
        ("redis://:hunter2@one,two", "names no host"),
        ("redis+cluster://:hunter2@one,,two", "names no host"),
        ("rediss+cluster://:hunter2@one?ssl_cert_reqs=perhaps", "none, optional or required"),
        ("rediss+cluster://:hunter2@one?ssl_ca_path=/run/certificates", "unknown option"),
    ],
)
def test_what_can_not_be_used_is_refused_without_its_password(url: str, sentence: str):
    with pytest.raises(ValueError, match=sentence) as refusal:
        RedisUrl.parse(url)
    assert "hunter2" not in str(refusal.value)
    assert str(refusal.value).endswith(".")
