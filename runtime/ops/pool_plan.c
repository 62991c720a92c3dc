/* SPDX-License-Identifier: Apache-2.0 */
/* Windows of poolings, and the checks of aten/src/ATen/native/{Pool.h,AdaptivePooling.h}; see
 * pool_plan.h. */
#include "runtime/ops/pool_plan.h"

#include <string.h>

#include "runtime/ops/shape.h"

struct geometry {
	int64_t kernel, stride, pad, dilation;
};

/* The arguments of dimension @d of @n. */
static int64_t pick(const int64_t *v, int64_t len, int d, int64_t otherwise)
{
	return len == 0 ? otherwise : len == 1 ? v[0] : v[d];
}

static int check_lengths(const char *op, int n, const struct pb_pool_args *a)
{
	if (a->n_kernel != 1 && a->n_kernel != n)
		return pb_rt_fail(
			"%s: kernel_size must either be a single int, or a tuple of %s ints", op,
			n == 2 ? "two" : "three");
	if (a->n_stride > 1 && a->n_stride != n)
		return pb_rt_fail(
			"%s: stride must either be omitted, a single int, or a tuple of %s ints",
			op, n == 2 ? "two" : "three");
	if (a->n_pad > 1 && a->n_pad != n)
		return pb_rt_fail("%s: padding must either be a single int, or a tuple of %s ints",
				  op, n == 2 ? "two" : "three");
	if (a->n_dilation > 1 && a->n_dilation != n)
		return pb_rt_fail("%s: dilation must be either a single int, or a tuple of %s ints",
				  op, n == 2 ? "two" : "three");
	return 0;
}

static int check_geometry(const char *op, const struct geometry *g)
{
	const int64_t most = INT32_MAX;

	if (g->kernel <= 0 || g->kernel > most)
		return pb_rt_fail("%s: kernel size should be greater than zero, but got %lld", op,
				  (long long)g->kernel);
	if (g->stride <= 0 || g->stride > most)
		return pb_rt_fail("%s: stride should be greater than zero, but got %lld", op,
				  (long long)g->stride);
	if (g->dilation <= 0 || g->dilation > most)
		return pb_rt_fail("%s: dilation should be greater than zero, but got dilation %lld",
				  op, (long long)g->dilation);
	if (g->pad < 0 || g->pad > ((g->kernel - 1) * g->dilation + 1) / 2)
		return pb_rt_fail("%s: pad should be at most half of effective kernel size, but "
				  "got pad=%lld, kernel_size=%lld "
				  "and dilation=%lld",
				  op, (long long)g->pad, (long long)g->kernel,
				  (long long)g->dilation);
	return 0;
}

static int64_t divide_down(int64_t a, int64_t b)
{
	return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static int64_t output_size(const struct geometry *g, int64_t in, bool ceil)
{
	int64_t out = divide_down(in + 2 * g->pad - g->dilation * (g->kernel - 1) - 1 +
					  (ceil ? g->stride - 1 : 0),
				  g->stride) +
		      1;

	/* The last window must begin inside the input or its left padding. */
	if (ceil && (out - 1) * g->stride >= in + g->pad)
		out--;
	return out;
}

static int make_windows(struct pb_pool *p, int d, const struct geometry *g)
{
	const int64_t in = p->in[d];

	p->windows[d] = pb_rt_scratch((size_t)p->out[d] * sizeof(*p->windows[d]) + 1);
	if (!p->windows[d])
		return 1;
	for (int64_t o = 0; o < p->out[d]; o++) {
		struct pb_window *w = &p->windows[d][o];
		const int64_t lo = o * g->stride - g->pad,
			      reach = lo + (g->kernel - 1) * g->dilation + 1;

		w->step = g->dilation;
		w->full = (reach < in + g->pad ? reach : in + g->pad) - lo;
		w->lo = lo < 0 ? lo + (-lo + g->dilation - 1) / g->dilation * g->dilation : lo;
		w->hi = reach < in ? reach : in;
	}
	return 0;
}

/* The sizes, with @spatial dimensions at the end after channels and perhaps a batch. */
static int take_shape(struct pb_pool *p, const struct pb_rt_tensor *self)
{
	const int n = p->spatial, first = self->ndim - n;
	int64_t numel = 1;

	p->in[0] = p->out[0] = 1;
	if (first != 1 && first != 2)
		return pb_rt_fail("Expected %dD or %dD (batch mode) tensor with optional 0 dim "
				  "batch size for input, but got:%s",
				  n + 1, n + 2, PB_SHAPE(self));
	for (int i = 0; i < n; i++)
		p->in[3 - n + i] = self->sizes[first + i];
	p->planes_c = self->sizes[first - 1];
	p->planes_n = first == 2 ? self->sizes[0] : 1;
	for (int d = first == 2 || p->adaptive; d < self->ndim; d++)
		numel *= self->sizes[d];
	if (numel == 0)
		return pb_rt_fail("Expected %dD or %dD (batch mode) tensor with optional 0 dim "
				  "batch size for input, but got:%s",
				  n + 1, n + 2, PB_SHAPE(self));
	return 0;
}

static const struct geometry whole = {1, 1, 0, 1};

static int init(struct pb_pool *p, const struct pb_rt_tensor *self, const struct pb_pool_args *a)
{
	struct geometry g[3] = {whole, whole, whole};

	if (check_lengths(p->op, p->spatial, a))
		return 1;
	for (int i = 0; i < p->spatial; i++) {
		struct geometry *k = &g[3 - p->spatial + i];

		k->kernel = pick(a->kernel, a->n_kernel, i, 1);
		k->stride = pick(a->stride, a->n_stride, i, k->kernel);
		k->pad = pick(a->pad, a->n_pad, i, 0);
		k->dilation = pick(a->dilation, a->n_dilation, i, 1);
		if (check_geometry(p->op, k))
			return 1;
	}
	if (take_shape(p, self))
		return 1;
	for (int d = 0; d < 3 && p->spatial == 3 && !a->n_dilation; d++)
		if (p->in[d] < g[d].kernel)
			return pb_rt_fail("input image (T: %lld H: %lld W: %lld) smaller than "
					  "kernel size (kT: %lld kH: %lld kW: "
					  "%lld)",
					  (long long)p->in[0], (long long)p->in[1],
					  (long long)p->in[2], (long long)g[0].kernel,
					  (long long)g[1].kernel, (long long)g[2].kernel);
	for (int d = 3 - p->spatial; d < 3; d++) {
		p->out[d] = output_size(&g[d], p->in[d], a->ceil);
		if (p->out[d] < 1)
			return pb_rt_fail("%s: the calculated output size of input %s is too small",
					  p->op, PB_SHAPE(self));
	}
	return make_windows(p, 0, &g[0]) || make_windows(p, 1, &g[1]) || make_windows(p, 2, &g[2]);
}

int pb_pool_init(struct pb_pool *p, const char *op, int spatial, const struct pb_rt_tensor *self,
		 const struct pb_pool_args *args)
{
	*p = (struct pb_pool){.op = op, .spatial = spatial};
	if (!init(p, self, args))
		return 0;
	pb_pool_deinit(p);
	return 1;
}

/* Windows that share the input out evenly. */
static int make_adaptive(struct pb_pool *p, int d)
{
	const int64_t in = p->in[d], out = p->out[d];

	p->windows[d] = pb_rt_scratch((size_t)out * sizeof(*p->windows[d]) + 1);
	if (!p->windows[d])
		return 1;
	for (int64_t o = 0; o < out; o++) {
		struct pb_window *w = &p->windows[d][o];

		w->step = 1;
		w->lo = o / out * in + o % out * in / out;
		w->hi = 1 + ((o + 1) * in - 1) / out;
		w->full = w->hi - w->lo;
	}
	return 0;
}

static int init_adaptive(struct pb_pool *p, const struct pb_rt_tensor *self, const int64_t *sizes,
			 int64_t n)
{
	if (n != p->spatial)
		return pb_rt_fail("%s(): internal error: output_size.size() must be %d", p->op,
				  p->spatial);
	if (take_shape(p, self))
		return 1;
	for (int i = 0; i < p->spatial; i++) {
		const int d = 3 - p->spatial + i;

		p->out[d] = sizes[i];
		if (sizes[i] < 0 || sizes[i] > INT32_MAX || p->in[d] > INT32_MAX)
			return pb_rt_fail(
				"%s(): elements of output_size must be greater than or equal to 0",
				p->op);
	}
	return make_adaptive(p, 0) || make_adaptive(p, 1) || make_adaptive(p, 2);
}

int pb_pool_init_adaptive(struct pb_pool *p, const char *op, int spatial,
			  const struct pb_rt_tensor *self, const int64_t *output_size, int64_t n)
{
	*p = (struct pb_pool){.op = op, .spatial = spatial, .adaptive = true};
	if (!init_adaptive(p, self, output_size, n))
		return 0;
	pb_pool_deinit(p);
	return 1;
}

void pb_pool_deinit(struct pb_pool *p)
{
	for (int d = 0; d < 3; d++)
		pb_rt_scratch_free(p->windows[d]);
	memset(p->windows, 0, sizeof(p->windows));
}
