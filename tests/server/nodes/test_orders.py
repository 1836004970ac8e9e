"""What an order closed is counted over all nodes, and who has not heard of it is named."""

from __future__ import annotations

from pov_rt.connections.directory import Closed, Order
from pov_rt.protocol.errors import CloseCode
from tests.nodes.conftest import Nodes


def test_connections_of_all_nodes_are_counted(nodes: Nodes) -> None:
    one, two = nodes
    for node in (one, two, two):
        node.connect("ana")
    server = one.web.server

    async def disconnect() -> tuple[Order, Closed]:
        order = server.directory.disconnect(
            user_id="ana", connection_id=None, code=CloseCode.DISCONNECTED
        )
        return order, await server.orders.closed(order)

    order, closed = one.run(disconnect)
    assert order.closed == 1
    assert (closed.number, closed.missing) == (3, [])


def test_a_node_that_has_not_heard_of_an_order_is_named(nodes: Nodes) -> None:
    one, two = nodes
    closed = one.run(lambda: one.web.server.orders.closed(Order("never told", 4)))
    assert closed.number == 4
    (missing,) = closed.missing
    assert missing.node == two.web.server.node
    assert missing.why == "answered: It has not heard of it"
