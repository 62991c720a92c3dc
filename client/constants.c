/* SPDX-License-Identifier: Apache-2.0 */
/* Changes of a model's constants. The broker makes them, one at a time; threads of this process take turns. */
#include <string.h>

#include "client/constants.h"

/* Constants are a model's, and not a session's. */
static pb_status check_model(const struct pt2box_model *m, struct pt2box_error *err)
{
	pb_status st = pb_model_check(m, err);

	if (!st && m->session)
		st = pb_error_set(err, PT2BOX_USAGE, "constants are changed on the model, not on a session");
	return st;
}

static pb_status change(struct pt2box_model *m, struct pb_msg_change_constants *q, int fd, struct pt2box_error *err)
{
	struct pb_call call;
	pb_status st;

	q->model = m->loaded.model;
	pthread_mutex_lock(&m->changing);
	pb_call_begin(m->c, &call, PB_MSG_done);
	q->request = call.request;
	st = pb_call_finish(m->c, &call, PB_MSG_change_constants, q, &fd, fd >= 0, err);
	pthread_mutex_unlock(&m->changing);
	return st;
}

static pb_status update(struct pt2box_model *m, int fd, uint32_t flags, struct pt2box_error *err)
{
	struct pb_msg_change_constants q = {.change = PB_CHANGE_UPDATE,
					    .inactive = !!(flags & PT2BOX_CONSTANTS_INACTIVE),
					    .full = !!(flags & PT2BOX_CONSTANTS_FULL),
					    .names = !!(flags & PT2BOX_CONSTANTS_NAMES)};

	return change(m, &q, fd, err);
}

enum pt2box_status pt2box_load_constants(struct pt2box_model *m, const struct pt2box_constant *list, size_t n,
					 uint32_t flags, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int fd = -1;
	pb_status st;

	pb_error_clear(err);
	st = check_model(m, err);
	if (!st)
		st = pb_constants_check(m->manifest, list, n, flags, err);
	if (!st)
		st = pb_constants_file(list, n, &fd, err);
	return st ? st : update(m, fd, flags, err);
}

enum pt2box_status pt2box_load_constants_fd(struct pt2box_model *m, int fd, uint32_t flags, struct pt2box_error *err)
{
	PB_CLEANUP(pb_close_fd) int copy = -1;
	pb_status st;

	pb_error_clear(err);
	st = check_model(m, err);
	if (!st && fd < 0)
		st = pb_error_set(err, PT2BOX_USAGE, "there is no file descriptor %d", fd);
	if (!st)
		st = pb_constants_check(m->manifest, NULL, 0, flags & ~(uint32_t)PT2BOX_CONSTANTS_FULL, err);
	if (!st)
		st = pb_make_local(m->c, &fd, &copy, err);
	return st ? st : update(m, fd, flags, err);
}

static pb_status change_plain(struct pt2box_model *m, enum pb_change what, bool inactive, struct pt2box_error *err)
{
	struct pb_msg_change_constants q = {.change = what, .inactive = inactive};
	pb_status st;

	pb_error_clear(err);
	st = check_model(m, err);
	return st ? st : change(m, &q, -1, err);
}

enum pt2box_status pt2box_swap_constants(struct pt2box_model *m, struct pt2box_error *err)
{
	return change_plain(m, PB_CHANGE_SWAP, false, err);
}

enum pt2box_status pt2box_free_inactive_constants(struct pt2box_model *m, struct pt2box_error *err)
{
	return change_plain(m, PB_CHANGE_FREE_INACTIVE, true, err);
}

enum pt2box_status pt2box_fold_constants(struct pt2box_model *m, int inactive, struct pt2box_error *err)
{
	return change_plain(m, PB_CHANGE_FOLD, inactive != 0, err);
}
