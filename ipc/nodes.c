/* SPDX-License-Identifier: Apache-2.0 */
/* See nodes.h. */
#include "ipc/nodes.h"

#include <stdlib.h>
#include <string.h>

#include "ipc/pack.h"

#define FLAG_PYTHON 1u
#define FLAG_NATIVE 2u

const char *pb_node_kind_name(enum pt2box_op_kind kind)
{
	static const char *const names[] = {"none",   "tensor",	  "tensor[]", "int",	"int[]",	"float",
					    "float[]", "bool",	  "bool[]",   "string", "string[]",	"dtype",
					    "layout", "memory format", "device", "object"};

	return (unsigned)kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "?";
}

bool pb_node_kind_is_list(enum pt2box_op_kind kind)
{
	switch (kind) {
	case PT2BOX_OP_TENSORS:
	case PT2BOX_OP_INTS:
	case PT2BOX_OP_FLOATS:
	case PT2BOX_OP_BOOLS:
	case PT2BOX_OP_STRINGS:
		return true;
	default:
		return false;
	}
}

/* ---- layout ---- */

static void take_slots(struct pb_node *n, struct pb_node_arg *a)
{
	a->int_at = a->tensor_at = PB_SLOT_NONE;
	switch (a->kind) {
	case PT2BOX_OP_INT:
		a->int_at = n->n_ints++;
		break;
	case PT2BOX_OP_INTS:
		a->int_at = n->n_ints;
		n->n_ints += a->count;
		break;
	case PT2BOX_OP_TENSOR:
		a->tensor_at = n->n_tensors++;
		break;
	case PT2BOX_OP_TENSORS:
		a->tensor_at = n->n_tensors;
		for (uint32_t i = 0; i < a->count; i++)
			n->n_tensors += a->v.bools[i];
		break;
	default:
		break;
	}
}

pb_status pb_node_layout(struct pb_node *n, struct pt2box_error *err)
{
	n->n_ints = n->n_tensors = 0;
	for (uint32_t i = 0; i < n->n_args + n->n_outs; i++) {
		struct pb_node_arg *a = i < n->n_args ? &n->args[i] : &n->outs[i - n->n_args];

		if (a->count > PB_NODE_MAX_ITEMS)
			return pb_error_set(err, PT2BOX_LIMIT, "%.200s: a list of more than %u items", n->target,
					    PB_NODE_MAX_ITEMS);
		take_slots(n, a);
		if (n->n_ints > PB_NODE_MAX_ITEMS || n->n_tensors > PB_NODE_MAX_ITEMS)
			return pb_error_set(err, PT2BOX_LIMIT, "%.200s: more than %u integers or tensors", n->target,
					    PB_NODE_MAX_ITEMS);
	}
	return PT2BOX_OK;
}

/* ---- encode ---- */

static void put_text(struct pb_pack *p, const char *s)
{
	pb_pack_str(p, s, (uint32_t)strlen(s));
}

static void put_float(struct pb_pack *p, double f)
{
	uint64_t bits;

	memcpy(&bits, &f, sizeof(bits));
	pb_pack_form(p, 0xcb, bits, 8);
}

static void put_items(struct pb_pack *p, const struct pb_node_arg *a)
{
	pb_pack_array(p, a->count);
	for (uint32_t i = 0; i < a->count; i++) {
		if (a->kind == PT2BOX_OP_INTS)
			pb_pack_int(p, a->v.ints[i]);
		else if (a->kind == PT2BOX_OP_FLOATS)
			put_float(p, a->v.floats[i]);
		else if (a->kind == PT2BOX_OP_STRINGS)
			put_text(p, a->v.strings[i]);
		else
			pb_pack_uint(p, a->v.bools[i]);
	}
}

static void put_value(struct pb_pack *p, const struct pb_node_arg *a)
{
	switch (a->kind) {
	case PT2BOX_OP_NONE:
	case PT2BOX_OP_TENSOR:
		pb_pack_array(p, 0);
		break;
	case PT2BOX_OP_FLOAT:
		pb_pack_array(p, 1);
		put_float(p, a->v.f);
		break;
	case PT2BOX_OP_STRING:
	case PT2BOX_OP_OBJECT:
		pb_pack_array(p, 1);
		put_text(p, a->v.s);
		break;
	case PT2BOX_OP_DEVICE:
		pb_pack_array(p, 2);
		pb_pack_int(p, a->v.i);
		pb_pack_int(p, a->device_index);
		break;
	case PT2BOX_OP_INT:
	case PT2BOX_OP_BOOL:
	case PT2BOX_OP_DTYPE:
	case PT2BOX_OP_LAYOUT:
	case PT2BOX_OP_MEMORY_FORMAT:
		pb_pack_array(p, 1);
		pb_pack_int(p, a->v.i);
		break;
	default:
		put_items(p, a);
	}
}

static void put_arg(struct pb_pack *p, const struct pb_node_arg *a)
{
	pb_pack_array(p, 3);
	put_text(p, a->name);
	pb_pack_uint(p, a->kind);
	put_value(p, a);
}

static void put_node(struct pb_pack *p, const struct pb_node *n)
{
	pb_pack_array(p, 3 + n->n_args + n->n_outs);
	put_text(p, n->target);
	pb_pack_uint(p, (n->python ? FLAG_PYTHON : 0) | (n->native ? FLAG_NATIVE : 0));
	pb_pack_uint(p, n->n_args);
	for (uint32_t i = 0; i < n->n_args; i++)
		put_arg(p, &n->args[i]);
	for (uint32_t i = 0; i < n->n_outs; i++)
		put_arg(p, &n->outs[i]);
}

pb_status pb_nodes_encode(const struct pb_nodes *nodes, uint8_t **ret, size_t *ret_bytes, struct pt2box_error *err)
{
	uint8_t *buf = malloc(PB_NODES_MAX_ENCODED);
	struct pb_pack p;

	if (!buf)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for the package's operators");
	p = (struct pb_pack){buf, buf + PB_NODES_MAX_ENCODED, false};
	pb_pack_array(&p, nodes->n);
	for (uint32_t i = 0; i < nodes->n; i++)
		put_node(&p, &nodes->list[i]);
	if (p.full) {
		free(buf);
		return pb_error_set(err, PT2BOX_LIMIT, "the package calls too many operators by name");
	}
	*ret = buf;
	*ret_bytes = (size_t)(p.at - buf);
	return PT2BOX_OK;
}

/* ---- decode ---- */

struct block {
	struct block *next;
	size_t used, size;
	max_align_t data[];
};

struct owner {
	struct pb_nodes nodes; /* first: pb_nodes_free() */
	struct block *blocks;
};

/* What is read, and where it goes. Faults latch in the reader. */
struct in {
	struct pb_unpack u;
	struct owner *o;
	bool no_memory;
};

#define BLOCK 8192u

static void *take(struct in *in, size_t n, size_t size)
{
	size_t bytes = (n * size + 15) & ~(size_t)15; /* n is at most PB_NODES_MAX or a length in the block */
	struct block *b = in->o->blocks;
	void *p;

	if (!b || b->size - b->used < bytes) {
		size_t room = bytes > BLOCK ? bytes : BLOCK;

		b = calloc(1, sizeof(*b) + room);
		if (!b) {
			in->u.bad = in->no_memory = true;
			return NULL;
		}
		b->size = room;
		b->next = in->o->blocks;
		in->o->blocks = b;
	}
	p = (char *)b->data + b->used;
	b->used += bytes;
	return p;
}

/* Each item of an array is a byte at least: more of them than bytes is a lie, and must cost no memory. */
static uint32_t get_array(struct in *in, uint32_t max)
{
	uint32_t n = pb_unpack_array(&in->u, max);

	if (n > (size_t)(in->u.end - in->u.at))
		in->u.bad = true;
	return in->u.bad ? 0 : n;
}

/* @clean: for people to read; else as it is, but without NUL. */
static const char *get_text(struct in *in, bool clean)
{
	uint32_t n;
	const char *s = pb_unpack_str(&in->u, &n);
	char *copy;

	if (memchr(s, '\0', n))
		in->u.bad = true;
	copy = in->u.bad ? NULL : take(in, n + 1, 1);
	if (!copy)
		return "";
	if (clean)
		pb_text_escape(copy, n + 1, s, n);
	else
		memcpy(copy, s, n);
	return copy;
}

static int64_t get_int(struct in *in)
{
	uint8_t first = in->u.at < in->u.end ? *in->u.at : 0;

	if (first >= 0xe0) {
		in->u.at++;
		return (int8_t)first;
	}
	if (first >= 0xd0 && first <= 0xd3) {
		unsigned bytes = 1u << (first & 3);
		uint64_t v;

		in->u.at++;
		v = pb_unpack_number(&in->u, bytes);
		return bytes == 8 ? (int64_t)v : (int64_t)(v << (64 - 8 * bytes)) >> (64 - 8 * bytes);
	}
	return (int64_t)pb_unpack_uint(&in->u, INT64_MAX);
}

static double get_float(struct in *in)
{
	uint64_t bits;
	double f;

	if (pb_unpack_byte(&in->u) != 0xcb)
		in->u.bad = true;
	bits = pb_unpack_number(&in->u, 8);
	memcpy(&f, &bits, sizeof(f));
	return f;
}

static void get_items(struct in *in, struct pb_node_arg *a, uint32_t n)
{
	int64_t *ints = a->kind == PT2BOX_OP_INTS ? take(in, n, sizeof(*ints)) : NULL;
	double *floats = a->kind == PT2BOX_OP_FLOATS ? take(in, n, sizeof(*floats)) : NULL;
	const char **strings = a->kind == PT2BOX_OP_STRINGS ? take(in, n, sizeof(*strings)) : NULL;
	uint8_t *bools = !ints && !floats && !strings ? take(in, n, 1) : NULL;

	for (uint32_t i = 0; i < n && !in->u.bad; i++) {
		if (ints)
			ints[i] = get_int(in);
		else if (floats)
			floats[i] = get_float(in);
		else if (strings)
			strings[i] = get_text(in, false);
		else
			bools[i] = (uint8_t)pb_unpack_uint(&in->u, 1);
	}
	a->count = in->u.bad ? 0 : n;
	if (ints)
		a->v.ints = ints;
	else if (floats)
		a->v.floats = floats;
	else if (strings)
		a->v.strings = strings;
	else
		a->v.bools = bools;
}

static int64_t max_of(enum pt2box_op_kind kind)
{
	switch (kind) {
	case PT2BOX_OP_BOOL:
		return 1;
	case PT2BOX_OP_LAYOUT:
	case PT2BOX_OP_MEMORY_FORMAT:
		return 15;
	case PT2BOX_OP_DEVICE:
	case PT2BOX_OP_DTYPE:
		return 255;
	default:
		return INT64_MAX;
	}
}

static void get_value(struct in *in, struct pb_node_arg *a)
{
	uint32_t n = get_array(in, PB_NODE_MAX_ITEMS);
	uint32_t want = a->kind == PT2BOX_OP_NONE || a->kind == PT2BOX_OP_TENSOR ? 0 : a->kind == PT2BOX_OP_DEVICE ? 2 : 1;

	if (pb_node_kind_is_list(a->kind)) {
		get_items(in, a, n);
		return;
	}
	if (n != want)
		in->u.bad = true;
	if (in->u.bad || !n)
		return;
	if (a->kind == PT2BOX_OP_FLOAT)
		a->v.f = get_float(in);
	else if (a->kind == PT2BOX_OP_STRING || a->kind == PT2BOX_OP_OBJECT)
		a->v.s = get_text(in, false);
	else if (a->kind == PT2BOX_OP_INT)
		a->v.i = get_int(in);
	else
		a->v.i = (int64_t)pb_unpack_uint(&in->u, (uint64_t)max_of(a->kind));
	if (a->kind == PT2BOX_OP_DEVICE) {
		int64_t index = get_int(in);

		if (index < -1 || index > 127)
			in->u.bad = true;
		a->device_index = (int32_t)index;
	}
}

/* False: stop. What was not read well is not used by anybody. */
static bool get_arg(struct in *in, struct pb_node_arg *a, bool out)
{
	if (pb_unpack_array(&in->u, 3) != 3)
		in->u.bad = true;
	a->name = get_text(in, true);
	a->kind = (enum pt2box_op_kind)pb_unpack_uint(&in->u, PT2BOX_OP_OBJECT);
	get_value(in, a);
	if (out && a->kind != PT2BOX_OP_NONE && a->kind != PT2BOX_OP_TENSOR && a->kind != PT2BOX_OP_TENSORS &&
	    a->kind != PT2BOX_OP_INT)
		in->u.bad = true;
	return !in->u.bad;
}

static bool get_node(struct in *in, struct pb_node *n)
{
	uint32_t all = get_array(in, 3 + PB_NODE_MAX_ARGS + PB_NODE_MAX_OUTS);
	uint64_t flags;

	n->target = get_text(in, true);
	flags = pb_unpack_uint(&in->u, FLAG_PYTHON | FLAG_NATIVE);
	n->python = flags & FLAG_PYTHON;
	n->native = flags & FLAG_NATIVE;
	n->n_args = (uint32_t)pb_unpack_uint(&in->u, PB_NODE_MAX_ARGS);
	if (all < 3 || n->n_args > all - 3 || all - 3 - n->n_args > PB_NODE_MAX_OUTS || !n->target[0])
		in->u.bad = true;
	if (in->u.bad)
		return false;
	n->n_outs = all - 3 - n->n_args;
	n->args = take(in, n->n_args + n->n_outs + 1, sizeof(*n->args));
	if (!n->args)
		return false;
	n->outs = n->args + n->n_args;
	for (uint32_t i = 0; i < n->n_args + n->n_outs; i++)
		if (!get_arg(in, &n->args[i], i >= n->n_args))
			return false;
	return pb_node_layout(n, NULL) == PT2BOX_OK;
}

pb_status pb_nodes_decode(const uint8_t *data, size_t bytes, struct pb_nodes **ret, struct pt2box_error *err)
{
	struct in in = {.u = {data, data + bytes, bytes > PB_NODES_MAX_ENCODED}, .o = calloc(1, sizeof(*in.o))};
	struct pb_nodes *nodes;

	if (!in.o)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for the package's operators");
	nodes = &in.o->nodes;
	nodes->n = bytes ? get_array(&in, PB_NODES_MAX) : 0;
	nodes->list = take(&in, nodes->n, sizeof(*nodes->list));
	for (uint32_t i = 0; i < nodes->n && !in.u.bad; i++)
		if (!get_node(&in, &nodes->list[i]))
			in.u.bad = true;
	if (!in.u.bad && in.u.at == in.u.end) {
		*ret = nodes;
		return PT2BOX_OK;
	}
	pb_nodes_free(nodes);
	if (in.no_memory)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for the package's operators");
	return pb_error_set(err, PT2BOX_PKG_REJECTED, "meta.nodes: malformed");
}

struct pb_nodes *pb_nodes_free(struct pb_nodes *nodes)
{
	struct owner *o = (struct owner *)(void *)nodes; /* its first member */

	while (o && o->blocks) {
		struct block *b = o->blocks;

		o->blocks = b->next;
		free(b);
	}
	free(o);
	return NULL;
}
