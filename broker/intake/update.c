/* SPDX-License-Identifier: Apache-2.0 */
/* See update.h. Everything is checked before the first byte is written. */
#include "broker/intake/update.h"

#include <stdlib.h>

#include "broker/intake/given.h"
#include "ipc/socket.h"

static pb_status update(const struct pb_update *u, const struct pb_manifest *m, const struct pb_safetensors *f,
			char digest[PB_DIGEST_TEXT], struct pt2box_error *err)
{
	const struct pb_stored_tensor **given = calloc((size_t)m->n_constants + 1, sizeof(*given));
	const struct pb_const_parts parts = {.file = f, .given = given, .parameters = u->parameters, .others = u->base};
	pb_status st;

	if (!given)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a list of constants");
	st = pb_given_match(m, f, u->names, u->full ? PB_REQUIRED_PARAMETERS : PB_REQUIRED_NONE, given, err);
	if (!st)
		st = pb_const_memory_write(m, &parts, u->max_bytes, u->out, digest, err);
	free(given);
	return st;
}

pb_status pb_update_run(const struct pb_update *u, char ret_digest[PB_DIGEST_TEXT], struct pt2box_error *err)
{
	struct pb_safetensors f = {.fd = -1};
	struct pb_manifest *m = NULL;
	pb_status st = pb_manifest_read(u->manifest, &m, err);

	if (!st)
		st = pb_const_layout_check(m, err);
	if (!st)
		st = pb_safetensors_open(u->file, &f, err);
	if (!st)
		st = update(u, m, &f, ret_digest, err);
	pb_safetensors_close(&f);
	pb_manifest_free(m);
	return st;
}
