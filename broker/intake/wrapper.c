/* SPDX-License-Identifier: Apache-2.0 */
/* See wrapper.h. One pass over the lines; each kind of line that matters has a function, all others are stepped over. */
#include "broker/intake/wrapper.h"

#include <stdlib.h>
#include <string.h>

#include "broker/intake/cursor.h"
#include "broker/intake/expr.h"

#define SPEC_MAX (1u << 20)
#define SPEC_PIECES 128 /* of 16 KB: torch splits them there */
#define NAME_MAX_BYTES 4096
#define UNBOUNDED (INT64_MAX / 2) /* the compiler writes "no bound" as a number near the greatest */

/* One input while its check function is read. */
struct draft {
	struct pb_word var; /* its name in the code; n == 0: no check function seen */
	int32_t dtype;	    /* -1: not seen */
	bool foreign;	    /* of another device, or of an unknown dtype */
	uint32_t sized, strided; /* bits: dimensions with a check */
	int64_t lo[PT2BOX_MAX_DIMS], hi[PT2BOX_MAX_DIMS], stride[PT2BOX_MAX_DIMS];
	bool fixed[PT2BOX_MAX_DIMS];
	int32_t ndim; /* from assert_size_stride; -1: not seen */
	struct pb_expr size_expr[PT2BOX_MAX_DIMS], stride_expr[PT2BOX_MAX_DIMS];
};

enum { C_NAME = 1, C_DTYPE = 2, C_SIZE = 4, C_SHAPE = 8, C_STRIDE = 16, C_FQN = 32, C_ALL = 63 };

struct scan {
	struct pb_arena *a;
	struct pb_wrapper *w;
	struct pb_cursor text; /* the rest, from the current line on */
	struct draft *draft;   /* n_inputs; freed at the end */
	uint8_t *seen;	       /* n_constants: C_* */
	struct draft *cur;     /* whose check function is being read */
	uint32_t n_draft, n_const, last_assert;
	uint64_t steps; /* left for looking up names, so that hostile text cannot make it quadratic */
	bool bad_inputs, bad_constants, no_memory;
};

/* ---- small pieces ---- */

/* "text" with \" and \\ only. */
static const char *take_string(struct scan *s, struct pb_cursor *c)
{
	char buf[NAME_MAX_BYTES];
	size_t n = 0;
	char *r;

	if (!pb_take(c, "\""))
		return NULL;
	while (c->at < c->end && *c->at != '"') {
		if (*c->at == '\\' && c->end - c->at > 1 && (c->at[1] == '"' || c->at[1] == '\\'))
			c->at++;
		else if (*c->at == '\\' || *c->at == '\n' || *c->at == '\0')
			return NULL;
		if (n == sizeof(buf))
			return NULL;
		buf[n++] = *c->at++;
	}
	if (!pb_take(c, "\""))
		return NULL;
	r = pb_arena_text(s->a, buf, n);
	s->no_memory |= !r;
	return r;
}

/* "{256, 64}" */
static bool take_list(struct pb_cursor *c, int64_t dst[PT2BOX_MAX_DIMS], int32_t *ret_n)
{
	int32_t n = 0;

	if (!pb_take(c, "{"))
		return false;
	pb_skip_space(c);
	while (!pb_take(c, "}")) {
		if (n == PT2BOX_MAX_DIMS || !pb_take_number(c, &dst[n++]))
			return false;
		pb_skip_space(c);
		if (pb_take(c, ","))
			pb_skip_space(c);
		else if (c->at == c->end || *c->at != '}')
			return false;
	}
	*ret_n = n;
	return true;
}

static int32_t dtype_of(struct pb_word w)
{
	char name[32];

	if (w.n >= sizeof(name))
		return -1;
	memcpy(name, w.s, w.n);
	name[w.n] = '\0';
	return pt2box_dtype_from_name(name);
}

/* "prefix[3]" with an index below @n. */
static bool take_index(struct pb_cursor *c, const char *prefix, uint32_t n, uint32_t *ret)
{
	int64_t i;

	if (!pb_take(c, prefix) || !pb_take(c, "[") || !pb_take_number(c, &i) || !pb_take(c, "]") || i >= (int64_t)n)
		return false;
	*ret = (uint32_t)i;
	return true;
}

/* ---- counts ---- */

/* : AOTInductorModelBase(1, 1, 4, over three lines. */
static void on_counts(struct scan *s, struct pb_cursor c)
{
	int64_t n[3], most = (s->text.end - c.at) / 16; /* each has a line of its own */

	c.end = s->text.end;
	if (most > PB_MANIFEST_MAX_TENSORS)
		most = PB_MANIFEST_MAX_TENSORS;
	for (int i = 0; i < 3; i++) {
		pb_skip_space(&c);
		if (!pb_take_number(&c, &n[i]) || !pb_take(&c, ",") || n[i] > most) {
			s->bad_inputs = s->bad_constants = true;
			return;
		}
	}
	if (s->w->has_counts) { /* two models in one text */
		s->bad_inputs = s->bad_constants = true;
		return;
	}
	s->w->has_counts = true;
	s->w->n_inputs = s->n_draft = (uint32_t)n[0];
	s->w->n_outputs = (uint32_t)n[1];
	s->n_const = (uint32_t)n[2];
	s->draft = calloc((size_t)n[0] + 1, sizeof(*s->draft));
	s->seen = calloc((size_t)n[2] + 1, 1);
	s->w->inputs = pb_arena_take(s->a, s->n_draft, sizeof(*s->w->inputs));
	s->w->constants = pb_arena_take(s->a, s->n_const, sizeof(*s->w->constants));
	if (!s->draft || !s->seen || !s->w->inputs || !s->w->constants) {
		s->no_memory = true;
		return;
	}
	s->steps = (uint64_t)s->n_draft * 64 + 4096;
	for (uint32_t i = 0; i < s->n_draft; i++) {
		s->draft[i].dtype = s->draft[i].ndim = -1;
		s->w->inputs[i] = (struct pb_sig_input){.name = "", .dtype = -1, .ndim = -1};
	}
}

static void on_input_name(struct scan *s, struct pb_cursor c)
{
	const char *name;
	uint32_t i;

	if (!take_index(&c, "inputs_info_", s->n_draft, &i) || !pb_take(&c, ".name = "))
		return;
	name = take_string(s, &c);
	if (name)
		s->w->inputs[i].name = name;
	else
		s->bad_inputs = true;
}

/* ---- constants ---- */

static bool constant_type(struct pb_cursor *c, enum pb_const_type *ret)
{
	static const struct {
		const char *name;
		enum pb_const_type type;
	} types[] = {{"Parameter", PB_CONST_PARAMETER},
		     {"Buffer", PB_CONST_BUFFER},
		     {"TensorConstant", PB_CONST_TENSOR},
		     {"FoldedConstant", PB_CONST_FOLDED},
		     {"Unknown", PB_CONST_UNKNOWN}};
	const char *at = memmem(c->at, (size_t)(c->end - c->at), "ConstantType::", 14);
	struct pb_word w;

	if (!at)
		return false;
	c->at = at + 14;
	if (!pb_take_word(c, &w))
		return false;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (pb_word_is(w, types[i].name)) {
			*ret = types[i].type;
			return true;
		}
	return false;
}

/* "cached_torch_dtype_float32", bare or inside a cast. */
static bool cached(struct pb_cursor *c, const char *prefix, struct pb_word *ret)
{
	const char *at = memmem(c->at, (size_t)(c->end - c->at), prefix, strlen(prefix));

	if (!at)
		return false;
	c->at = at + strlen(prefix);
	return pb_take_word(c, ret);
}

static bool constant_dtype(struct pb_cursor *c, struct pb_constant *k)
{
	struct pb_word w;

	if (!cached(c, "cached_torch_dtype_", &w))
		return false;
	k->dtype = dtype_of(w);
	return k->dtype >= 0;
}

static bool constant_text(struct scan *s, struct pb_cursor *c, const char **dst)
{
	const char *text = take_string(s, c);

	if (text)
		*dst = text;
	return text != NULL;
}

static bool constant_dims(struct pb_cursor *c, struct pb_constant *k, int64_t *dst, uint8_t seen)
{
	int32_t n;

	if (!take_list(c, dst, &n) || ((seen & (C_SHAPE | C_STRIDE)) && n != k->ndim))
		return false;
	k->ndim = n;
	return true;
}

static bool constant_field(struct scan *s, struct pb_word field, struct pb_cursor *c, uint32_t i)
{
	struct pb_constant *k = &s->w->constants[i];
	struct pb_word w;
	int64_t v;

	if (pb_word_is(field, "name")) {
		s->seen[i] |= C_NAME;
		return constant_text(s, c, &k->name);
	}
	if (pb_word_is(field, "original_fqn")) {
		s->seen[i] |= C_FQN;
		return constant_text(s, c, &k->fqn);
	}
	if (pb_word_is(field, "dtype")) {
		s->seen[i] |= C_DTYPE;
		return constant_dtype(c, k);
	}
	if (pb_word_is(field, "data_size")) {
		s->seen[i] |= C_SIZE;
		k->data_size = pb_take_number(c, &v) ? (uint64_t)v : UINT64_MAX;
		return k->data_size != UINT64_MAX;
	}
	if (pb_word_is(field, "shape") || pb_word_is(field, "stride")) {
		bool shape = pb_word_is(field, "shape");
		bool ok = constant_dims(c, k, shape ? k->sizes : k->strides, s->seen[i]);

		s->seen[i] |= shape ? C_SHAPE : C_STRIDE;
		return ok;
	}
	if (pb_word_is(field, "offset"))
		return pb_take_number(c, &k->storage_offset);
	if (pb_word_is(field, "from_folded")) {
		k->folded = pb_take(c, "true");
		return k->folded || pb_take(c, "false");
	}
	if (pb_word_is(field, "type"))
		return constant_type(c, &k->type);
	if (pb_word_is(field, "layout")) {
		k->opaque = !cached(c, "cached_torch_layout_", &w) || !pb_word_is(w, "strided");
		if (k->opaque)
			s->w->opaque_constant = k->name ? k->name : "?";
		return true;
	}
	if (pb_word_is(field, "device_type"))
		return cached(c, "cached_torch_device_type_", &w) && pb_word_is(w, "cpu");
	return true; /* a field of another version */
}

static void on_constant(struct scan *s, struct pb_cursor c)
{
	struct pb_word field;
	uint32_t i;

	if (!take_index(&c, "constants_info_", s->n_const, &i) || !pb_take(&c, ".") || !pb_take_word(&c, &field) ||
	    !pb_take(&c, " = ") || !constant_field(s, field, &c, i))
		s->bad_constants = true;
}

/* ---- call spec ---- */

/* in_spec_ = R"(...)"; long ones in pieces, R"(...)" R"(...)". They may hold anything: the text goes on after them. */
static void on_spec(struct scan *s, struct pb_cursor c, const char *what, const char **dst)
{
	const char *from[SPEC_PIECES], *stop = NULL;
	size_t len[SPEC_PIECES], total = 0, n = 0;
	char *copy, *at;

	if (!pb_take(&c, what) || !pb_take(&c, " ="))
		return;
	c.end = s->text.end;
	for (;;) {
		pb_skip_space(&c);
		if (!pb_take(&c, "R\"("))
			break;
		stop = memmem(c.at, (size_t)(c.end - c.at), ")\"", 2);
		if (!stop || n == SPEC_PIECES) {
			s->text.at = stop ? stop : s->text.end;
			return;
		}
		from[n] = c.at;
		len[n] = (size_t)(stop - c.at);
		total += len[n++];
		c.at = stop + 2;
	}
	if (n == 0)
		return;
	s->text.at = c.at;
	copy = total <= SPEC_MAX ? pb_arena_take(s->a, total + 1, 1) : NULL;
	s->no_memory |= !copy && total <= SPEC_MAX;
	at = copy;
	for (size_t i = 0; i < n && copy; i++) {
		memcpy(at, from[i], len[i]);
		at += len[i];
	}
	if (copy && strlen(copy) == total)
		*dst = copy;
}

/* ---- inputs: their check functions ---- */

/* ConstantHandle arg0_1 = ConstantHandle(input_handles[0]); */
static void on_handle(struct scan *s, struct pb_cursor c)
{
	struct pb_word var;
	uint32_t i;

	s->cur = NULL;
	if (!pb_take(&c, "ConstantHandle ") || !pb_take_word(&c, &var) || !pb_take(&c, " = ConstantHandle("))
		return;
	if (!s->draft || !take_index(&c, "input_handles", s->n_draft, &i))
		return; /* checks of outputs, in debug builds */
	if (s->draft[i].var.n) {
		s->bad_inputs = true;
		return;
	}
	s->cur = &s->draft[i];
	s->cur->var = var;
}

static bool take_var(struct scan *s, struct pb_cursor *c, const char *suffix)
{
	return pb_take_bytes(c, s->cur->var.s, s->cur->var.n) && pb_take(c, suffix);
}

/* int32_t arg0_1_expected_dtype = aoti_torch_dtype_float32(); */
static void on_expected(struct scan *s, struct pb_cursor c)
{
	struct pb_cursor d;
	struct pb_word w;
	int64_t device;

	if (!s->cur || !pb_take(&c, "int32_t "))
		return;
	d = c;
	if (take_var(s, &c, "_expected_dtype = aoti_torch_dtype_")) {
		if (!pb_take_word(&c, &w) || s->cur->dtype >= 0)
			s->cur->foreign = true;
		else
			s->cur->dtype = dtype_of(w);
	} else if (take_var(s, &d, "_expected_device_type = ")) {
		if (!pb_take_number(&d, &device) || device != 0)
			s->cur->foreign = true;
	}
}

/* A dimension "[1]" after "arg0_1_size". */
static bool take_dim(struct pb_cursor *c, uint32_t *ret)
{
	return take_index(c, "", PT2BOX_MAX_DIMS, ret);
}

/* if (64 != arg0_1_size[1]) {   if (1 != arg0_1_stride[1]) { */
static void on_fixed(struct scan *s, struct pb_cursor c, int64_t v)
{
	struct draft *d = s->cur;
	struct pb_cursor t = c;
	uint32_t i;

	if (take_var(s, &c, "_size")) {
		if (!take_dim(&c, &i) || (d->sized & 1u << i)) {
			s->bad_inputs = true;
			return;
		}
		d->sized |= 1u << i;
		d->fixed[i] = true;
		d->lo[i] = d->hi[i] = v;
	} else if (take_var(s, &t, "_stride")) {
		if (!take_dim(&t, &i) || (d->strided & 1u << i)) {
			s->bad_inputs = true;
			return;
		}
		d->strided |= 1u << i;
		d->stride[i] = v;
	}
}

/* if (arg0_1_size[0] < 2) {   if (arg0_1_size[0] > 1024) { */
static void on_bound(struct scan *s, struct pb_cursor c)
{
	struct draft *d = s->cur;
	bool lower;
	uint32_t i;
	int64_t v;

	if (!take_var(s, &c, "_size"))
		return;
	if (!take_dim(&c, &i) || d->fixed[i]) {
		s->bad_inputs = true;
		return;
	}
	lower = pb_take(&c, " < ");
	if ((!lower && !pb_take(&c, " > ")) || !pb_take_number(&c, &v)) {
		s->bad_inputs = true;
		return;
	}
	if (!(d->sized & 1u << i)) {
		d->sized |= 1u << i;
		d->lo[i] = 0;
		d->hi[i] = INT64_MAX;
	}
	if (lower)
		d->lo[i] = v;
	else
		d->hi[i] = v >= UNBOUNDED ? INT64_MAX : v;
}

static void on_if(struct scan *s, struct pb_cursor c)
{
	struct pb_cursor t;
	int64_t v;

	if (!s->cur || !pb_take(&c, "if ("))
		return;
	t = c;
	if (pb_take_number(&c, &v) && pb_take(&c, " != "))
		on_fixed(s, c, v);
	else
		on_bound(s, t);
}

/* ---- inputs: assert_size_stride, which alone says how many dimensions there are ---- */

static struct draft *find_var(struct scan *s, struct pb_word w)
{
	/* They come in the order of the inputs. */
	for (uint32_t k = 0; k < s->n_draft; k++) {
		uint32_t i = (s->last_assert + k) % s->n_draft;

		if (s->steps-- == 0) {
			s->steps = 0;
			s->bad_inputs = true;
			return NULL;
		}
		if (s->draft[i].var.n == w.n && memcmp(s->draft[i].var.s, w.s, w.n) == 0) {
			s->last_assert = i + 1;
			return &s->draft[i];
		}
	}
	return NULL;
}

static bool take_exprs(struct pb_cursor *c, struct pb_expr dst[PT2BOX_MAX_DIMS], int32_t *ret_n)
{
	int32_t n = 0;

	if (!pb_take(c, "{"))
		return false;
	pb_skip_space(c);
	while (!pb_take(c, "}")) {
		if (n == PT2BOX_MAX_DIMS)
			return false;
		dst[n++] = pb_expr_read(c);
		if (pb_take(c, ","))
			pb_skip_space(c);
		else if (c->at == c->end || *c->at != '}')
			return false;
	}
	*ret_n = n;
	return true;
}

/* if (...) { assert_size_stride(arg0_1, {s77, 64L}, {64L, 1L}, "input"); } */
static void on_assert(struct scan *s, struct pb_cursor c)
{
	struct pb_expr sizes[PT2BOX_MAX_DIMS], strides[PT2BOX_MAX_DIMS];
	int32_t n, n_strides;
	struct pb_word w;
	struct draft *d;

	if (!pb_take(&c, "assert_size_stride(") || !pb_take_word(&c, &w) || !pb_take(&c, ", ") ||
	    !take_exprs(&c, sizes, &n) || !pb_take(&c, ", ") || !take_exprs(&c, strides, &n_strides) ||
	    !pb_take(&c, ", \"input\")"))
		return; /* of a buffer, or of another version */
	d = find_var(s, w);
	if (!d)
		return;
	if (d->ndim >= 0 || n != n_strides) {
		s->bad_inputs = true;
		return;
	}
	d->ndim = n;
	memcpy(d->size_expr, sizes, (size_t)n * sizeof(*sizes));
	memcpy(d->stride_expr, strides, (size_t)n * sizeof(*strides));
}

/* ---- the end: from drafts to a signature ---- */

static int64_t lower_bound(const struct draft *d, int32_t i)
{
	const struct pb_expr *e = &d->size_expr[i];

	/* The compiler takes sizes 0 and 1 for special, so a free size begins at 2; code made so runs with 1 as well. */
	if (d->ndim >= 0 && e->known && e->monotone && !e->constant && e->twos == (uint64_t)d->lo[i])
		return (int64_t)e->ones;
	return d->lo[i] == 2 ? 1 : d->lo[i];
}

static bool one_dim(const struct draft *d, int32_t i, int32_t ndim, struct pb_sig_dim *ret)
{
	const struct pb_expr *size = &d->size_expr[i];
	struct pb_expr next;

	if (!(d->sized & 1u << i)) {
		/* Only a free size without bounds has no check. */
		if (d->ndim < 0 || (size->known && size->constant))
			return false;
		*ret = (struct pb_sig_dim){0, INT64_MAX, -1};
	} else if (d->fixed[i]) {
		if (d->ndim >= 0 && (!size->known || !size->constant || size->ones != (uint64_t)d->lo[i]))
			return false;
		*ret = (struct pb_sig_dim){d->lo[i], d->hi[i], -1};
	} else {
		if (d->ndim >= 0 && size->known && size->constant)
			return false;
		*ret = (struct pb_sig_dim){lower_bound(d, i), d->hi[i], -1};
	}
	if (ret->lo > ret->hi)
		return false;
	if (d->strided & 1u << i) {
		ret->stride = d->stride[i];
		return d->ndim < 0 || (d->stride_expr[i].known && d->stride_expr[i].ones == (uint64_t)ret->stride);
	}
	/* A free stride can only be told as "what follows from the sizes": it must be that. */
	if (d->ndim < 0 || i + 1 >= ndim)
		return false;
	next = pb_expr_product(&d->stride_expr[i + 1], &d->size_expr[i + 1]);
	return pb_expr_same(&d->stride_expr[i], &next);
}

static bool finish_input(const struct draft *d, struct pb_sig_input *ret)
{
	struct pb_sig_input in = *ret;
	int32_t ndim = d->ndim;

	if (d->var.n == 0 || d->foreign || d->dtype < 0)
		return false;
	if (ndim < 0)
		ndim = __builtin_popcount(d->sized);
	/* Checks of dimensions that are not there: the count is wrong. */
	if (((d->sized | d->strided) >> ndim) != 0)
		return false;
	for (int32_t i = 0; i < ndim; i++)
		if (!one_dim(d, i, ndim, &in.dims[i]))
			return false;
	in.dtype = d->dtype;
	in.ndim = ndim;
	*ret = in;
	return true;
}

static void finish_inputs(struct scan *s)
{
	struct pb_wrapper *w = s->w;
	bool ok = w->has_counts && !s->bad_inputs && s->draft;

	for (uint32_t i = 0; i < w->n_inputs && ok; i++)
		ok = finish_input(&s->draft[i], &w->inputs[i]);
	w->has_signature = ok;
	for (uint32_t i = 0; i < w->n_inputs && !ok; i++)
		w->inputs[i].dtype = w->inputs[i].ndim = -1;
}

static void finish_constants(struct scan *s)
{
	struct pb_wrapper *w = s->w;
	bool ok = w->has_counts && !s->bad_constants;

	for (uint32_t i = 0; i < s->n_const && ok; i++)
		ok = s->seen[i] == C_ALL;
	w->has_constants = ok;
	w->n_constants = ok ? s->n_const : 0;
}

static void on_line(struct scan *s, struct pb_cursor c)
{
	static const char guard[] = "if (_check_aoti_runtime_check_inputs_env()) { ";
	const char *col0 = c.at;
	struct pb_cursor t;

	pb_skip_space(&c);
	if (c.at == c.end)
		return;
	switch (*c.at) {
	case ':':
		if (pb_take(&c, ": AOTInductorModelBase("))
			on_counts(s, c);
		break;
	case 'i':
		if (*col0 != ' ')
			break;
		t = c;
		on_input_name(s, c);
		on_spec(s, c, "in_spec_", &s->w->in_spec);
		on_expected(s, c);
		if (pb_take(&t, guard))
			on_assert(s, t);
		else
			on_if(s, c);
		break;
	case 'a':
		on_assert(s, c);
		break;
	case 'o':
		on_spec(s, c, "out_spec_", &s->w->out_spec);
		break;
	case 'c':
		t = c;
		if (s->w->has_counts && pb_take(&t, "constants_info_["))
			on_constant(s, c);
		break;
	case 'C':
		if (s->w->has_counts)
			on_handle(s, c);
		break;
	case '}':
		if (c.at == col0)
			s->cur = NULL;
		break;
	default:
		break;
	}
}

bool pb_wrapper_scan(const char *text, size_t bytes, struct pb_arena *a, struct pb_wrapper *ret)
{
	static const char arrayref[] = "run_impl_minimal_arrayref_interface";
	struct scan s = {.a = a, .w = ret, .text = {text, text + bytes}};

	*ret = (struct pb_wrapper){.in_spec = "", .out_spec = ""};
	while (s.text.at < s.text.end && !s.no_memory) {
		const char *line = s.text.at;
		const char *nl = memchr(line, '\n', (size_t)(s.text.end - line));
		const char *end = nl ? nl : s.text.end;

		on_line(&s, (struct pb_cursor){line, end});
		if (s.text.at == line) /* no multi-line piece was read */
			s.text.at = nl ? nl + 1 : s.text.end;
	}
	if (!s.no_memory) {
		finish_inputs(&s);
		finish_constants(&s);
		ret->minimal_arrayref = memmem(text, bytes, arrayref, sizeof(arrayref) - 1) != NULL;
	}
	free(s.draft);
	free(s.seen);
	return !s.no_memory;
}

/* ---- how it was compiled ---- */

/* Numbers after each occurrence of @what: the smallest. */
static void note_threads(const char *text, size_t bytes, const char *what, uint32_t *ret)
{
	struct pb_cursor c = {text, text + bytes};
	const char *at;
	int64_t v;

	while ((at = memmem(c.at, (size_t)(c.end - c.at), what, strlen(what)))) {
		c.at = at + strlen(what);
		if (pb_take_number(&c, &v) && v > 0 && v < 65536 && (*ret == 0 || v < (int64_t)*ret))
			*ret = (uint32_t)v;
	}
}

void pb_wrapper_scan_build(const char *text, size_t bytes, struct pb_build *ret)
{
	static const char mark[] = "\n// Compile cmd\n";
	struct pb_cursor c = {text, text + bytes};
	const char *at, *line = NULL, *end;
	size_t used = strlen(ret->command), n;

	/* Loops that name their threads, and sums over one partial result for each thread. */
	note_threads(text, bytes, "omp parallel num_threads(", &ret->openmp_threads);
	note_threads(text, bytes, "for (int tid = 0; tid < ", &ret->openmp_threads);
	ret->tiles |= memmem(text, bytes, "_tile_", 6) != NULL;
	/* Each time the text is compiled anew another comment is added: the last one counts. */
	while ((at = memmem(c.at, (size_t)(c.end - c.at), mark, sizeof(mark) - 1))) {
		line = at + sizeof(mark) - 1;
		c.at = line;
	}
	if (!line || used + 2 >= sizeof(ret->command))
		return;
	end = memchr(line, '\n', (size_t)(c.end - line));
	n = (size_t)((end ? end : c.end) - line);
	if (n > sizeof(ret->command) - used - 2)
		n = sizeof(ret->command) - used - 2;
	ret->command[used] = ' ';
	memcpy(ret->command + used + 1, line, n);
	ret->command[used + 1 + n] = '\0';
}
