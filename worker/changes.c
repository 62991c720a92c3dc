/* SPDX-License-Identifier: Apache-2.0 */
/* See changes.h. */
#include "worker/changes.h"

#include <unistd.h>

#include "ipc/fdmap.h"

/* Numbers are in order, whichever way they wrap. */
static bool is_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static uint32_t committed(const struct pb_changes *c)
{
	return atomic_load_explicit(&c->board->committed, memory_order_acquire);
}

static void tell(uint16_t id, const void *msg)
{
	if (pb_write(PB_FD_WORKER_CTL, id, msg, NULL))
		_exit(0);
}

void pb_changes_stage(struct pb_changes *c, const struct pb_msg_constants_stage *order, const struct pb_fds *fds)
{
	struct pb_msg_constants_staged staged = {.change_seq = order->change_seq};

	if (c->is_staged) /* it has been given up by the broker */
		pb_constants_unstage(&c->staged);
	c->staged = (struct pb_constants_change){.seq = (uint32_t)order->change_seq};
	c->is_staged = true;
	c->cannot_stage = pb_constants_stage(c->model, (uint32_t)order->change_seq, (enum pb_change)order->change,
					     order->inactive, fds->n ? fds->fd[0] : -1, &c->staged, NULL);
	tell(PB_MSG_constants_staged, &staged);
}

/*
 * Not packed: the broker replaces this worker by a fork of the template, which has packed copies for all. A failure leaves
 * other constants than the other workers have: serve no more.
 */
void pb_changes_make_due(struct pb_changes *c)
{
	struct pb_msg_constants_applied applied = {.change_seq = c->staged.seq};

	if (!c->is_staged || is_before(committed(c), c->staged.seq))
		return;
	c->is_staged = false;
	applied.status = c->cannot_stage ? PT2BOX_UNSUPPORTED : pb_constants_apply(c->model, &c->staged, false, NULL);
	c->broken = applied.status != PT2BOX_OK;
	tell(PB_MSG_constants_applied, &applied);
}

bool pb_changes_must_wait(const struct pb_changes *c)
{
	return c->broken || is_before(committed(c), c->model->constants.change_seq);
}

void pb_changes_extract(struct pb_changes *c, const struct pb_msg_constants_extract *order, const struct pb_fds *fds)
{
	struct pb_msg_constants_extracted done = {.id = order->id};

	done.status = pb_constants_extract(c->model, order->inactive, fds->fd[0], NULL);
	tell(PB_MSG_constants_extracted, &done);
}
