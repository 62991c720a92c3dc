/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of constants. What comes is sealed memory in the manifest's layout, then one byte a constant: bytes of a worker, in
 * memory of the broker's. Size and seals are checked before it is mapped; tensors keep the mapping.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "client/internal.h"
#include "ipc/checked.h"

#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

static pb_status check_memory(int fd, uint64_t bytes, struct pt2box_error *err)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat sb;

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &sb) != 0 || (uint64_t)sb.st_size != bytes)
		return pb_error_set(err, PT2BOX_PROTOCOL, "the broker sent constants in memory that is not theirs");
	return PT2BOX_OK;
}

static bool is_given(const struct pb_manifest *m, const uint8_t *table, uint32_t i)
{
	return table[i] && !m->constants[i].folded;
}

/* Entries, then the bytes of their names: one block. */
static struct pt2box_constant *list_new(const struct pb_manifest *m, const uint8_t *table, size_t *ret_n)
{
	struct pt2box_constant *list;
	size_t n = 0, text = 0;
	char *names;

	for (uint32_t i = 0; i < m->n_constants; i++)
		if (is_given(m, table, i)) {
			text += strlen(m->constants[i].fqn) + 1;
			n++;
		}
	list = calloc(1, n * sizeof(*list) + text + 1);
	if (!list)
		return NULL;
	*ret_n = n;
	names = (char *)(list + n);
	n = 0;
	for (uint32_t i = 0; i < m->n_constants; i++)
		if (is_given(m, table, i)) {
			list[n++].name = names;
			names = stpcpy(names, m->constants[i].fqn) + 1;
		}
	return list;
}

static pb_status make_one(const struct pb_constant *c, uint8_t *base, uint64_t const_bytes, struct pt2box_tensor **ret,
			  struct pt2box_error *err)
{
	struct pt2box_tensor *t;
	uint64_t skip, bytes;
	pb_status st = pb_tensor_new(c->dtype, c->ndim, c->sizes, c->strides, &t, &bytes, err);

	if (st)
		return st;
	if (c->storage_offset < 0 ||
	    !pb_mul_u64((uint64_t)c->storage_offset, pt2box_dtype_size(c->dtype), &skip) ||
	    !pb_span_fits(skip, bytes, c->data_size) || !pb_span_fits(c->blob_offset, c->data_size, const_bytes) ||
	    (bytes && c->blob_offset % pt2box_dtype_size(c->dtype))) {
		free(t);
		return pb_error_set(err, PT2BOX_PROTOCOL, "the package's constant \"%.200s\" does not lie in its bytes",
				    c->fqn);
	}
	t->info.data = bytes ? base + c->blob_offset + skip : pb_tensor_nothing;
	t->info.readonly = 1;
	*ret = t;
	return PT2BOX_OK;
}

/* @s: the whole memory; a tensor takes a reference. */
static pb_status make_all(const struct pb_manifest *m, struct pb_storage *s, struct pt2box_constant *list, size_t n,
			  struct pt2box_error *err)
{
	const uint8_t *table = s->map + m->const_bytes;
	size_t k = 0;

	for (uint32_t i = 0; i < m->n_constants && k < n; i++) {
		pb_status st;

		if (!is_given(m, table, i))
			continue;
		st = make_one(&m->constants[i], s->map, m->const_bytes, &list[k].tensor, err);
		if (st)
			return st;
		atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
		list[k++].tensor->storage = s;
	}
	return PT2BOX_OK;
}

static pb_status check_table(const struct pb_manifest *m, const uint8_t *table, struct pt2box_error *err)
{
	for (uint32_t i = 0; i < m->n_constants; i++)
		if (table[i] > 1)
			return pb_error_set(err, PT2BOX_MODEL_PROTOCOL,
					    "the model's worker wrote constants that cannot be read");
	return PT2BOX_OK;
}

static pb_status make_list(const struct pb_manifest *m, int fd, struct pt2box_constant **ret_list, size_t *ret_n,
			   struct pt2box_error *err)
{
	struct pt2box_constant *list = NULL;
	struct pb_storage *s;
	uint64_t bytes;
	size_t n = 0;
	pb_status st;

	if (!m->n_constants) {
		*ret_list = NULL;
		*ret_n = 0;
		return PT2BOX_OK;
	}
	if (!pb_add_u64(m->const_bytes, m->n_constants, &bytes))
		return pb_error_set(err, PT2BOX_PROTOCOL, "the package's constants cannot be");
	st = check_memory(fd, bytes, err);
	if (!st)
		st = pb_storage_new_map(fd, bytes, &s, err);
	if (st)
		return st;
	st = check_table(m, s->map + m->const_bytes, err);
	if (!st) {
		list = list_new(m, s->map + m->const_bytes, &n);
		st = list ? make_all(m, s, list, n, err)
			  : pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a list of constants");
	}
	pb_storage_unref(s);
	if (st) {
		pt2box_free_constants(list, n);
		return st;
	}
	*ret_list = list;
	*ret_n = n;
	return PT2BOX_OK;
}

enum pt2box_status pt2box_extract_constants(struct pt2box_model *m, int inactive, struct pt2box_constant **ret_list,
					    size_t *ret_n, struct pt2box_error *err)
{
	struct pb_msg_read_constants q = {
		.model = m->loaded.model, .session = m->session, .inactive = inactive != 0};
	struct pb_call call;
	pb_status st;

	pb_error_clear(err);
	st = pb_model_check(m, err);
	if (st)
		return st;
	pb_call_begin(m->c, &call, PB_MSG_constants_values);
	q.request = call.request;
	st = pb_call_finish(m->c, &call, PB_MSG_read_constants, &q, NULL, 0, err);
	if (st)
		return st;
	st = make_list(m->manifest, call.fds.fd[0], ret_list, ret_n, err);
	pb_fds_close(&call.fds);
	return st;
}

void pt2box_free_constants(struct pt2box_constant *list, size_t n)
{
	for (size_t i = 0; list && i < n; i++)
		pt2box_tensor_free(list[i].tensor);
	free(list);
}
