/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest's codec: one msgpack array in a fixed order. Whoever decodes treats the bytes as hostile: the structure is
 * scanned first, every count is bounded, text is made harmless, and arithmetic on sizes is checked by the user of them.
 */
#include "ipc/manifest.h"

#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/checked.h"
#include "ipc/socket.h"
#include "ipc/messages.h"

#define TEXT_MAX (4u << 20)

/* ---- encode ---- */

/* Latches its first failure: one piece that found no memory must not leave a manifest with a hole. */
struct writer {
	msgpack_sbuffer buf;
	pb_status st;
};

static int write_piece(void *data, const char *bytes, size_t n)
{
	struct writer *w = data;

	if (!w->st && n > PB_MANIFEST_MAX_BYTES - w->buf.size)
		w->st = PT2BOX_LIMIT;
	if (!w->st && msgpack_sbuffer_write(&w->buf, bytes, n))
		w->st = PT2BOX_NO_MEMORY;
	return w->st ? -1 : 0;
}

static void put_str(msgpack_packer *pk, const char *s)
{
	size_t n = s ? strlen(s) : 0;

	msgpack_pack_str(pk, n);
	msgpack_pack_str_body(pk, s, n);
}

static void put_i64s(msgpack_packer *pk, const int64_t *v, int32_t n)
{
	msgpack_pack_array(pk, (size_t)n);
	for (int32_t i = 0; i < n; i++)
		msgpack_pack_int64(pk, v[i]);
}

static void put_input(msgpack_packer *pk, const struct pb_sig_input *in)
{
	int32_t n = in->ndim < 0 ? 0 : in->ndim;

	msgpack_pack_array(pk, 4);
	put_str(pk, in->name);
	msgpack_pack_int32(pk, in->dtype);
	msgpack_pack_int32(pk, in->ndim);
	msgpack_pack_array(pk, (size_t)n * 3);
	for (int32_t i = 0; i < n; i++) {
		msgpack_pack_int64(pk, in->dims[i].lo);
		msgpack_pack_int64(pk, in->dims[i].hi);
		msgpack_pack_int64(pk, in->dims[i].stride);
	}
}

static void put_constant(msgpack_packer *pk, const struct pb_constant *c)
{
	msgpack_pack_array(pk, 11);
	put_str(pk, c->name);
	put_str(pk, c->fqn);
	msgpack_pack_int32(pk, c->dtype);
	put_i64s(pk, c->sizes, c->ndim);
	put_i64s(pk, c->strides, c->ndim);
	msgpack_pack_int64(pk, c->storage_offset);
	msgpack_pack_uint64(pk, c->data_size);
	msgpack_pack_uint64(pk, c->blob_offset);
	msgpack_pack_uint8(pk, c->folded);
	msgpack_pack_uint8(pk, c->opaque);
	msgpack_pack_uint8(pk, (uint8_t)c->type);
}

static void put_all(msgpack_packer *pk, const struct pb_manifest *m, const uint8_t *nodes, size_t n_nodes)
{
	msgpack_pack_array(pk, 33);
	msgpack_pack_uint32(pk, PB_MANIFEST_VERSION);
	put_str(pk, m->model_name);
	msgpack_pack_array(pk, m->n_model_names);
	for (uint32_t i = 0; i < m->n_model_names; i++)
		put_str(pk, m->model_names[i]);
	put_str(pk, m->device);
	msgpack_pack_array(pk, (size_t)m->n_metadata * 2);
	for (uint32_t i = 0; i < m->n_metadata; i++) {
		put_str(pk, m->metadata[i].key);
		put_str(pk, m->metadata[i].value);
	}
	put_str(pk, m->in_spec);
	put_str(pk, m->out_spec);
	msgpack_pack_array(pk, m->n_inputs);
	for (uint32_t i = 0; i < m->n_inputs; i++)
		put_input(pk, &m->inputs[i]);
	msgpack_pack_uint32(pk, m->n_outputs);
	msgpack_pack_uint8(pk, m->has_signature);
	msgpack_pack_array(pk, m->n_constants);
	for (uint32_t i = 0; i < m->n_constants; i++)
		put_constant(pk, &m->constants[i]);
	msgpack_pack_uint8(pk, (uint8_t)m->const_source);
	msgpack_pack_uint64(pk, m->const_bytes);
	msgpack_pack_uint64(pk, m->const_file_offset);
	msgpack_pack_uint8(pk, m->mutates);
	msgpack_pack_array(pk, m->n_imports);
	for (uint32_t i = 0; i < m->n_imports; i++) {
		msgpack_pack_array(pk, 3);
		put_str(pk, m->imports[i].name);
		msgpack_pack_uint8(pk, (uint8_t)m->imports[i].state);
		put_str(pk, m->imports[i].note);
	}
	msgpack_pack_uint32(pk, m->n_absent);
	msgpack_pack_uint32(pk, m->n_proxied);
	msgpack_pack_uint64(pk, m->so_bytes);
	msgpack_pack_uint64(pk, m->init_addr);
	msgpack_pack_uint64(pk, m->init_array_addr);
	msgpack_pack_uint32(pk, m->init_array_count);
	msgpack_pack_bin(pk, 32);
	msgpack_pack_bin_body(pk, m->so_sha256, 32);
	msgpack_pack_bin(pk, 32);
	msgpack_pack_bin_body(pk, m->pkg_sha256, 32);
	put_str(pk, m->cpu_isa);
	put_str(pk, m->cpu_needs);
	msgpack_pack_uint8(pk, m->uses_openmp);
	msgpack_pack_uint32(pk, m->openmp_threads);
	msgpack_pack_uint8(pk, m->minimal_arrayref);
	msgpack_pack_bin(pk, n_nodes);
	msgpack_pack_bin_body(pk, nodes, n_nodes);
	msgpack_pack_uint8(pk, m->needs_lapack);
	/* Room for later fields, so that an older reader can say which version it needs. */
	for (int i = 0; i < 2; i++)
		msgpack_pack_nil(pk);
}

pb_status pb_manifest_encode(const struct pb_manifest *m, uint8_t **ret, size_t *ret_bytes, struct pt2box_error *err)
{
	struct writer w = {.st = PT2BOX_OK};
	uint8_t *nodes = NULL;
	size_t n_nodes = 0;
	msgpack_packer pk;
	pb_status st;

	st = m->nodes && m->nodes->n ? pb_nodes_encode(m->nodes, &nodes, &n_nodes, err) : PT2BOX_OK;
	if (st)
		return st;
	msgpack_sbuffer_init(&w.buf);
	msgpack_packer_init(&pk, &w, write_piece);
	put_all(&pk, m, nodes, n_nodes);
	free(nodes);
	if (w.st) {
		msgpack_sbuffer_destroy(&w.buf);
		return pb_error_set(err, w.st, w.st == PT2BOX_LIMIT ? "the description of the package is too long"
								    : "no memory for a manifest");
	}
	*ret_bytes = w.buf.size;
	*ret = (uint8_t *)msgpack_sbuffer_release(&w.buf);
	return PT2BOX_OK;
}

/* ---- decode ---- */

/* The decoded manifest and everything it points to. */
struct arena {
	struct pb_manifest m;
	struct chunk {
		struct chunk *next;
		max_align_t data[];
	} *chunks;
};

/* Reads straight down; latches its first fault. */
struct in {
	struct arena *a;
	const msgpack_object *at, *end;
	bool bad, no_memory;
};

static void *take(struct in *in, size_t n, size_t size)
{
	struct chunk *c;

	if (n == 0)
		n = 1;
	c = calloc(1, sizeof(*c) + n * size);
	if (!c) {
		in->bad = in->no_memory = true;
		return NULL;
	}
	c->next = in->a->chunks;
	in->a->chunks = c;
	return c->data;
}

static const msgpack_object *next(struct in *in, msgpack_object_type type)
{
	if (!in->bad && in->at < in->end && in->at->type == type)
		return in->at++;
	in->bad = true;
	return NULL;
}

static uint64_t get_u64(struct in *in, uint64_t max)
{
	const msgpack_object *o = next(in, MSGPACK_OBJECT_POSITIVE_INTEGER);

	if (o && o->via.u64 <= max)
		return o->via.u64;
	in->bad = true;
	return 0;
}

/* An integer of at least @min. */
static int64_t get_i64(struct in *in, int64_t min)
{
	const msgpack_object *o;
	int64_t v;

	if (!in->bad && in->at < in->end && in->at->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
		return (int64_t)get_u64(in, INT64_MAX);
	o = next(in, MSGPACK_OBJECT_NEGATIVE_INTEGER);
	v = o ? o->via.i64 : 0;
	if (v < min)
		in->bad = true;
	return in->bad ? 0 : v;
}

static const char *get_str(struct in *in)
{
	const msgpack_object *o = next(in, MSGPACK_OBJECT_STR);
	char *s;

	if (!o || o->via.str.size > TEXT_MAX)
		in->bad = true;
	if (in->bad)
		return "";
	s = take(in, o->via.str.size + 1, 1);
	if (!s)
		return "";
	pb_text_escape(s, o->via.str.size + 1, o->via.str.ptr, o->via.str.size);
	return s;
}

static void get_bin32(struct in *in, uint8_t dst[32])
{
	const msgpack_object *o = next(in, MSGPACK_OBJECT_BIN);

	if (!o || o->via.bin.size != 32)
		in->bad = true;
	if (!in->bad)
		memcpy(dst, o->via.bin.ptr, 32);
}

/* Enter an array of at most @max items; *ret_n of them. */
static struct in enter(struct in *in, uint32_t max, uint32_t *ret_n)
{
	const msgpack_object *o = next(in, MSGPACK_OBJECT_ARRAY);
	struct in sub = {in->a, NULL, NULL, true, false};

	*ret_n = 0;
	if (!o || o->via.array.size > max)
		in->bad = true;
	if (in->bad)
		return sub;
	*ret_n = o->via.array.size;
	return (struct in){in->a, o->via.array.ptr, o->via.array.ptr + o->via.array.size, false, false};
}

static void leave(struct in *in, const struct in *sub)
{
	in->no_memory |= sub->no_memory;
	if (sub->bad || sub->at != sub->end)
		in->bad = true;
}

static void get_input(struct in *in, struct pb_sig_input *s)
{
	uint32_t n, dims;
	struct in row = enter(in, 4, &n), d;

	s->name = get_str(&row);
	s->dtype = (int32_t)get_i64(&row, -1);
	s->ndim = (int32_t)get_i64(&row, -1);
	d = enter(&row, PT2BOX_MAX_DIMS * 3, &dims);
	if (s->ndim > PT2BOX_MAX_DIMS || s->dtype > 255 || dims != (s->ndim < 0 ? 0 : (uint32_t)s->ndim * 3))
		row.bad = true;
	for (int32_t i = 0; i < s->ndim && !row.bad; i++) {
		s->dims[i].lo = (int64_t)get_u64(&d, INT64_MAX);
		s->dims[i].hi = (int64_t)get_u64(&d, INT64_MAX);
		s->dims[i].stride = get_i64(&d, -1);
	}
	leave(&row, &d);
	leave(in, &row);
}

static uint32_t get_dims(struct in *in, int64_t dst[PT2BOX_MAX_DIMS])
{
	uint32_t n;
	struct in d = enter(in, PT2BOX_MAX_DIMS, &n);

	for (uint32_t i = 0; i < n; i++)
		dst[i] = (int64_t)get_u64(&d, INT64_MAX);
	leave(in, &d);
	return n;
}

static void get_constant(struct in *in, struct pb_constant *c)
{
	uint32_t n;
	struct in row = enter(in, 11, &n);

	c->name = get_str(&row);
	c->fqn = get_str(&row);
	c->dtype = (int32_t)get_u64(&row, 255);
	c->ndim = (int32_t)get_dims(&row, c->sizes);
	if (get_dims(&row, c->strides) != (uint32_t)c->ndim)
		row.bad = true;
	c->storage_offset = (int64_t)get_u64(&row, INT64_MAX);
	c->data_size = get_u64(&row, INT64_MAX);
	c->blob_offset = get_u64(&row, INT64_MAX);
	c->folded = get_u64(&row, 1);
	c->opaque = get_u64(&row, 1);
	c->type = (enum pb_const_type)get_u64(&row, PB_CONST_FOLDED);
	leave(in, &row);
}

static void get_import(struct in *in, struct pb_import *im)
{
	uint32_t n;
	struct in row = enter(in, 3, &n);

	im->name = get_str(&row);
	im->state = (enum pb_shim_state)get_u64(&row, PB_SHIM_IS_OTHER);
	im->note = get_str(&row);
	leave(in, &row);
}

static void get_lists(struct in *in, struct pb_manifest *m)
{
	uint32_t n;
	struct in sub = enter(in, 4096, &m->n_model_names);

	m->model_names = take(in, m->n_model_names, sizeof(char *));
	for (uint32_t i = 0; i < m->n_model_names && m->model_names; i++)
		m->model_names[i] = get_str(&sub);
	leave(in, &sub);
	m->device = get_str(in);
	sub = enter(in, 8192, &n);
	if (n % 2)
		in->bad = true;
	m->n_metadata = n / 2;
	m->metadata = take(in, m->n_metadata, sizeof(*m->metadata));
	for (uint32_t i = 0; i < m->n_metadata && m->metadata; i++) {
		m->metadata[i].key = get_str(&sub);
		m->metadata[i].value = get_str(&sub);
	}
	leave(in, &sub);
	m->in_spec = get_str(in);
	m->out_spec = get_str(in);
	sub = enter(in, PB_MANIFEST_MAX_TENSORS, &m->n_inputs);
	m->inputs = take(in, m->n_inputs, sizeof(*m->inputs));
	for (uint32_t i = 0; i < m->n_inputs && m->inputs && !sub.bad; i++)
		get_input(&sub, &m->inputs[i]);
	leave(in, &sub);
	m->n_outputs = (uint32_t)get_u64(in, PB_MANIFEST_MAX_TENSORS);
	m->has_signature = get_u64(in, 1);
	sub = enter(in, PB_MANIFEST_MAX_TENSORS, &m->n_constants);
	m->constants = take(in, m->n_constants, sizeof(*m->constants));
	for (uint32_t i = 0; i < m->n_constants && m->constants && !sub.bad; i++)
		get_constant(&sub, &m->constants[i]);
	leave(in, &sub);
	m->const_source = (enum pb_const_source)get_u64(in, PB_CONSTS_NONE);
	m->const_bytes = get_u64(in, INT64_MAX);
	m->const_file_offset = get_u64(in, INT64_MAX);
	m->mutates = get_u64(in, 1);
	sub = enter(in, PB_MANIFEST_MAX_IMPORTS, &m->n_imports);
	m->imports = take(in, m->n_imports, sizeof(*m->imports));
	for (uint32_t i = 0; i < m->n_imports && m->imports && !sub.bad; i++)
		get_import(&sub, &m->imports[i]);
	leave(in, &sub);
}

static void get_nodes(struct in *in, struct pb_manifest *m)
{
	const msgpack_object *o = next(in, MSGPACK_OBJECT_BIN);
	pb_status st = PT2BOX_PKG_REJECTED;

	if (o)
		st = pb_nodes_decode((const uint8_t *)o->via.bin.ptr, o->via.bin.size, &m->nodes, NULL);
	in->bad |= st != PT2BOX_OK;
	in->no_memory |= st == PT2BOX_NO_MEMORY;
}

static void get_rest(struct in *in, struct pb_manifest *m)
{
	m->n_absent = (uint32_t)get_u64(in, PB_MANIFEST_MAX_IMPORTS);
	m->n_proxied = (uint32_t)get_u64(in, PB_MANIFEST_MAX_IMPORTS);
	m->so_bytes = get_u64(in, INT64_MAX);
	m->init_addr = get_u64(in, INT64_MAX);
	m->init_array_addr = get_u64(in, INT64_MAX);
	m->init_array_count = (uint32_t)get_u64(in, 65536);
	get_bin32(in, m->so_sha256);
	get_bin32(in, m->pkg_sha256);
	m->cpu_isa = get_str(in);
	m->cpu_needs = get_str(in);
	m->uses_openmp = get_u64(in, 1);
	m->openmp_threads = (uint32_t)get_u64(in, 65536);
	m->minimal_arrayref = get_u64(in, 1);
	get_nodes(in, m);
	m->needs_lapack = get_u64(in, 1);
	for (int i = 0; i < 2; i++)
		(void)next(in, MSGPACK_OBJECT_NIL);
}

/* Place, size and changes of the constants do not contradict each other: readers of them need not look again. */
static bool constants_agree(const struct pb_manifest *m)
{
	switch (m->const_source) {
	case PB_CONSTS_EMBEDDED_RO:
	case PB_CONSTS_EMBEDDED_RW:
		return m->mutates == (m->const_source == PB_CONSTS_EMBEDDED_RW) &&
		       pb_span_fits(m->const_file_offset, m->const_bytes, m->so_bytes);
	case PB_CONSTS_MMAP_SELF:
		return pb_span_fits(m->const_file_offset, m->const_bytes, m->so_bytes);
	case PB_CONSTS_NONE:
		return !m->mutates && m->const_bytes == 0 && m->const_file_offset == 0;
	case PB_CONSTS_BLOB:
	case PB_CONSTS_EXTERNAL:
	case PB_CONSTS_WEIGHTS_FILE:
		break;
	}
	return m->const_file_offset == 0;
}

pb_status pb_manifest_decode(const uint8_t *data, size_t bytes, struct pb_manifest **ret, struct pt2box_error *err)
{
	struct arena *a;
	msgpack_unpacked u;
	struct in top;
	size_t off = 0;

	if (bytes > PB_MANIFEST_MAX_BYTES || pb_msgpack_scan(data, bytes, 5))
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.manifest: malformed");
	a = calloc(1, sizeof(*a));
	if (!a)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a manifest");
	msgpack_unpacked_init(&u);
	top = (struct in){a, NULL, NULL, true, false};
	if (msgpack_unpack_next(&u, (const char *)data, bytes, &off) == MSGPACK_UNPACK_SUCCESS &&
	    u.data.type == MSGPACK_OBJECT_ARRAY)
		top = (struct in){a, u.data.via.array.ptr, u.data.via.array.ptr + u.data.via.array.size, false, false};
	if (get_u64(&top, UINT32_MAX) != PB_MANIFEST_VERSION)
		top.bad = true;
	a->m.model_name = get_str(&top);
	get_lists(&top, &a->m);
	get_rest(&top, &a->m);
	if (top.at != top.end || !constants_agree(&a->m))
		top.bad = true;
	msgpack_unpacked_destroy(&u);
	if (top.bad) {
		pb_manifest_free(&a->m);
		if (top.no_memory)
			return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for a manifest");
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.manifest: malformed");
	}
	*ret = &a->m;
	return PT2BOX_OK;
}

struct pb_manifest *pb_manifest_free(struct pb_manifest *m)
{
	struct arena *a = (struct arena *)(void *)m; /* its first member */

	if (m)
		pb_nodes_free(m->nodes);
	while (a && a->chunks) {
		struct chunk *c = a->chunks;

		a->chunks = c->next;
		free(c);
	}
	free(a);
	return NULL;
}

pb_status pb_manifest_read(int fd, struct pb_manifest **ret, struct pt2box_error *err)
{
	uint8_t *data;
	size_t bytes;
	pb_status st = pb_fd_slurp(fd, PB_MANIFEST_MAX_BYTES, &data, &bytes, err);

	if (st)
		return st;
	st = pb_manifest_decode(data, bytes, ret, err);
	free(data);
	return st;
}
