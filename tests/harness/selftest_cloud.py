"""Checks of the stand-ins: that they start, enforce what the tests rely on them for, and end; directly and through the fault proxy."""

from __future__ import annotations

import os
from typing import List

from .api import Result, check
from .aws import AwsError, Credentials, DynamoDb, S3
from .cloud import Cloud
from .fault_proxy import FaultProxy


def main() -> List[Result]:
    return [
        check("cloud: S3 of both, directly and through the proxy", buckets),
        check("cloud: DynamoDB, directly and through the proxy", tables),
        check("cloud: versitygw keeps what it acknowledged; nothing runs on", lifetimes),
    ]


def buckets() -> None:
    with Cloud() as cloud:
        for server in (cloud.versitygw, cloud.ministack):
            with FaultProxy(server.address, probability=0) as proxy:
                direct, proxied = S3(server.url, cloud.credentials), S3(proxy.url, cloud.credentials)
                proxied.create_bucket("bucket")
                keys = [f"of its own/{number} +ü" for number in range(5)]
                for number, key in enumerate(keys):
                    proxied.put("bucket", key, b"x" * number)
                proxied.put("bucket", "other", b"")
                for client in (direct, proxied):
                    found = [(one.key, one.size) for one in client.objects("bucket", "of its own/", page=2)]
                    assert found == [(key, number) for number, key in enumerate(keys)], found
                    assert client.get("bucket", keys[3]) == b"xxx" and client.get("bucket", "nothing") is None
                    head = client.head("bucket", keys[3])
                    assert head is not None and head["content-length"] == "3" and client.head("bucket", "nothing") is None
                proxied.delete("bucket", "other")
                assert [one.key for one in direct.objects("bucket")] == keys
                # The names of S3's API, as `operations` gives them, for what a client really sends.
                counted = proxy.requests()
                assert counted == {
                    "CreateBucket": 1,
                    "PutObject": 6,
                    "ListObjectsV2": 3,
                    "GetObject": 2,
                    "HeadObject": 2,
                    "DeleteObject": 1,
                }, counted
                assert list(direct.uploads("bucket", page=2)) == []
        wrong = S3(cloud.versitygw.url, Credentials(cloud.credentials.access_key, "wrong"))
        try:
            wrong.buckets()
        except AwsError as error:
            assert (error.status, error.code) == (403, "SignatureDoesNotMatch"), error
        else:
            raise AssertionError("versitygw took a wrong signature")


def tables() -> None:
    with Cloud() as cloud, FaultProxy(cloud.ministack.address, probability=0) as proxy:
        direct, proxied = DynamoDb(cloud.ministack.url, cloud.credentials), DynamoDb(proxy.url, cloud.credentials)
        assert direct.describe("table") is None
        key = {"AttributeName": "p"}
        proxied.call(
            "CreateTable",
            {
                "TableName": "table",
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [{**key, "AttributeType": "S"}],
                "KeySchema": [{**key, "KeyType": "HASH"}],
            },
        )
        described = direct.describe("table")
        assert direct.tables() == ["table"] and described is not None and described["TableStatus"] == "ACTIVE"
        # More than the megabyte that one page holds.
        items = {f"{number}": {"p": {"S": f"{number}"}, "filler": {"S": "x" * 300_000}} for number in range(5)}
        for item in items.values():
            proxied.call("PutItem", {"TableName": "table", "Item": item})
        assert {item["p"]["S"]: item for item in proxied.scan("table")} == items
        counted = proxy.requests()
        assert counted.pop("Scan") > 1 and counted == {"CreateTable": 1, "PutItem": 5}, counted
        try:
            direct.call("PutItem", {"TableName": "table", "Item": items["1"], "ConditionExpression": "attribute_not_exists(p)"})
        except AwsError as error:
            assert (error.status, error.code) == (400, "ConditionalCheckFailedException"), error
        else:
            raise AssertionError("a condition did not hold and was not refused")


def lifetimes() -> None:
    with Cloud() as cloud:
        client = S3(cloud.versitygw.url, cloud.credentials)
        client.create_bucket("bucket")
        client.put("bucket", "key", b"kept")
        first = cloud.versitygw.pid
        cloud.versitygw.kill()
        cloud.versitygw.start()
        assert cloud.versitygw.pid != first and client.get("bucket", "key") == b"kept"
        pids = [first, cloud.versitygw.pid, cloud.ministack.pid]
    for pid in pids:
        assert not os.path.exists(f"/proc/{pid}"), f"process {pid} still runs"
