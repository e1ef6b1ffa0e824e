"""A caller that uses dtm's Python client, unmodified.

Usage: client.py CASE, with the addresses in the environment. It prints the gid.
"""

import os
import sys

import pymysql
from dtmcli import msg, saga, tcc, utils

SERVER, ATHOS, PORTHOS = (os.environ[name] for name in ("SERVER", "ATHOS", "PORTHOS"))


def run_saga(gid, amount):
    s = saga.Saga(SERVER, gid)
    s.add({"amount": -30}, ATHOS + "/action", ATHOS + "/compensate")
    s.add({"amount": amount}, PORTHOS + "/action", PORTHOS + "/compensate")
    s.trans_base.wait_result = True
    s.submit()


def run_tcc(gid, amount):
    def tries(t):
        t.call_branch({"amount": -30}, ATHOS + "/try", ATHOS + "/confirm", ATHOS + "/cancel")
        t.call_branch({"amount": amount}, PORTHOS + "/try", PORTHOS + "/confirm", PORTHOS + "/cancel")

    if tcc.tcc_global_transaction(SERVER, gid, tries) != gid:
        raise utils.DTMFailureError("cancelled")


def run_message(gid, amount):
    """The sender's own work is done behind its barrier, in the database of athos."""
    connection = pymysql.connect(
        host=os.environ["HOST"], port=int(os.environ["PORT"]), user=os.environ["USER"], database=os.environ["DATABASE"]
    )

    def take(cursor):
        if cursor.execute("UPDATE account SET balance = balance - 30 WHERE balance >= %s", (-amount,)) == 0:
            raise utils.DTMFailureError("not enough")

    m = msg.Msg(SERVER, gid).add({"amount": 30}, PORTHOS + "/action").set_wait_result()
    m.do_and_submit_db(ATHOS + "/query", connection.cursor(), take)


CASES = {
    "saga": (run_saga, 30),
    "saga refused": (run_saga, -500),
    "tcc": (run_tcc, 30),
    "tcc refused": (run_tcc, -500),
    "message": (run_message, 0),
    "message not sent": (run_message, -500),
}

run, argument = CASES[sys.argv[1]]
gid = utils.gen_gid(SERVER)
print("gid", gid)
try:
    run(gid, argument)
except utils.DTMFailureError:
    print("refused")
