/* SPDX-License-Identifier: Apache-2.0 */
/* See ops_call.h. */
#include "ipc/ops_call.h"

#include "ipc/pack.h"

uint32_t pb_ops_encode_call(const struct pb_ops_call *c, uint8_t *buf, uint32_t cap)
{
	struct pb_pack p = {buf, buf + cap, false};
	uint32_t head, rest;

	pb_pack_uint(&p, c->node);
	pb_pack_array(&p, c->n_ints);
	for (uint32_t i = 0; i < c->n_ints; i++)
		pb_pack_uint(&p, (uint64_t)c->ints[i]);
	if (p.full)
		return 0;
	head = (uint32_t)(p.at - buf);
	rest = pb_lane_encode_request(c->request, p.at, cap - head);
	return rest ? head + rest : 0;
}

pb_status pb_ops_decode_call(struct pb_lane_decoder *d, const uint8_t *buf, uint32_t len, struct pb_ops_call *ret)
{
	struct pb_unpack u = {buf, buf + len, false};

	ret->node = (uint32_t)pb_unpack_uint(&u, PB_NODES_MAX);
	ret->n_ints = pb_unpack_array(&u, PB_OPS_INTS_MAX);
	for (uint32_t i = 0; i < ret->n_ints; i++)
		ret->ints[i] = (int64_t)pb_unpack_uint(&u, UINT64_MAX);
	if (u.bad)
		return PT2BOX_PROTOCOL;
	return pb_lane_decode_request(d, u.at, (uint32_t)(u.end - u.at), &ret->request);
}
