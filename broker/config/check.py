"""The check of each setting that holds more than numbers and fixed words."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from broker.channel import Channel
from broker.config.address import Address
from broker.config.key import check_api_key, check_audience, check_cookie, check_jwks, check_secret
from broker.config.peer import check_network, check_web_origin
from broker.config.process import check_control_socket, check_node, check_workers
from broker.config.redisname import check_channel_prefix, check_redis_url
from broker.config.secret import shown
from broker.errors import ChannelError
from broker.pattern import Pattern


def check_channel_type(name: str) -> None:
    """Refuse what is not one part of a channel's name.

    Raises:
        ValueError: a colon, or what the grammar of channels refuses.
    """
    if ":" in name:
        raise ValueError(f"{shown(name)} is more than a type; write the part before the first colon")
    try:
        Channel.from_name(name)
    except ChannelError as error:
        raise ValueError(str(error)) from None


def check_pattern(text: str) -> None:
    """Refuse what is no pattern of channels.

    Raises:
        ValueError: it could match no channel.
    """
    try:
        Pattern.parse(text)
    except ValueError as error:
        raise ValueError(f"{shown(text)} {error}") from None


CHECKS: Mapping[str, Callable[[str], object]] = {
    "listen.addresses": Address.parse,
    "listen.allowed_origins": check_web_origin,
    "listen.trusted_proxies": check_network,
    "listen.proxy_protocol": Address.parse,
    "listen.tls.addresses": Address.parse,
    "auth.secret": check_secret,
    "auth.jwks": check_jwks,
    "auth.audience": check_audience,
    "auth.cookie": check_cookie,
    "auth.publish_keys": check_api_key,
    "auth.admin_keys": check_api_key,
    "rules.user_subscribe": check_pattern,
    "rules.user_publish": check_pattern,
    "rules.anonymous_subscribe": check_pattern,
    "rules.anonymous_publish": check_pattern,
    "rules.key_publish": check_pattern,
    "redis.url": check_redis_url,
    "redis.channel_prefix": check_channel_prefix,
    "channels.declared": check_channel_type,
    "daemon.control_socket": check_control_socket,
    "daemon.node": check_node,
    "daemon.workers": check_workers,
}
"""By dotted setting; a ValueError refuses."""
