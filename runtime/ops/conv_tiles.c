/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Convolution by tiles of neighbouring output positions times output channels, straight from the
 * input, or from a copy of it with its padding (isa->conv_tile). Nothing is copied for each tap,
 * and no vector is partly empty unless the output's channels are few, however small the image.
 * Planes and channels last differ only in strides.
 *
 * Weights are packed as [panel][row of k][panel's columns], once if they are constant. A block of
 * positions collects its sums in a buffer of rows, k in chunks whose weights stay in L1; then the
 * rows are written out, transposed for planes.
 */
#include "runtime/ops/conv.h"

#include <string.h>

#include "runtime/ops/conv_image.h"
#include "runtime/ops/gemm.h"
#include "runtime/ops/parallel.h"
#include "runtime/tensor.h"

#define CHUNK_FLOATS 8192  /* weights of one chunk: most of L1 */
#define BLOCK_FLOATS 16384 /* sums of one block: a small part of L2 */
#define IMAGES_FLOATS (256 << 10) /* images that are read for each chunk of weights: a part of L3 */
#define MAX_COLUMNS 64
#define SUMS_FLOATS (BLOCK_FLOATS + MAX_COLUMNS * PB_TILE_MAX_ROWS)

/* The positions of one tile. */
struct spot {
	int64_t at;	    /* the first, in the output */
	int64_t x;	    /* offset in the image */
	const int64_t *row; /* and, from there, of each position */
	int64_t rows;
};

struct block {
	int64_t first, n; /* spots */
};

struct job {
	const struct pb_conv *c;
	struct pb_conv_image image;
	int64_t image_step; /* from one to the next */
	int64_t k, positions, panels;
	bool taps_first;   /* order of k, that of the weights: (tap, channel), not (channel, tap) */
	int vecs;	   /* of a full tile */
	const float *w;	   /* packed; NULL: each chunk is packed when its turn comes */
	float *w_own;	   /* where weights that are no constants are packed */
	int64_t *tap;	   /* offset in the image of each row of k */
	int64_t *position; /* and of each position of the output; if tall, of one tile's */
	bool tall;	   /* tiles have more than PB_TILE_ANY_ROWS */
	int64_t run;	   /* positions that tiles may not cross: if tall at one distance, step */
	int64_t step;
	int64_t max_rows; /* of a tile */
	struct spot *spots;
	struct block *blocks;
	int64_t n_blocks;
	float *sums; /* for each thread sums and, behind them, a chunk of weights */
	int threads;
	bool weights_once;
	int64_t n, images; /* at hand: these images, of this group */
	int64_t g;
};

static int64_t min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t div_up(int64_t a, int64_t b)
{
	return (a + b - 1) / b;
}

static int64_t tap_count(const struct pb_conv *c)
{
	return c->kernel[0] * c->kernel[1] * c->kernel[2];
}

/* ---- weights ---- */

/* Rows [k0, k0 + kc) of a panel, from output channel @oc on. */
static void pack_panel(const struct job *job, int64_t oc, int64_t columns, int64_t k0, int64_t kc,
		       float *dst)
{
	const struct pb_conv *c = job->c;
	const int nr = pb_gemm_isa()->nr[0];
	const float *w = (const float *)c->w + oc * c->ws[0] + k0;

	if (columns < nr)
		memset(dst, 0, kc * nr * sizeof(float));
	pb_gemm_isa()->transpose(dst, nr, w, c->ws[0], min64(nr, columns), kc);
}

static void pack_weights(const void *ctx, void *dst)
{
	const struct job *job = ctx;
	const struct pb_conv *c = job->c;
	const int nr = pb_gemm_isa()->nr[0];
	float *out = dst;

	for (int64_t g = 0; g < c->groups; g++)
		for (int64_t j = 0; j < c->ocg; j += nr, out += job->k * nr)
			pack_panel(job, g * c->ocg + j, c->ocg - j, 0, job->k, out);
}

static size_t packed_bytes(const struct job *job)
{
	return job->c->groups * pb_gemm_packed_bytes(job->k, job->c->ocg, PB_RT_F32);
}

static const float *constant_weights(const struct job *job)
{
	const struct pb_conv *c = job->c;
	const struct pb_pack_key key = {
		c->w, {job->k, c->ocg, c->groups, c->icg, c->ws[0], job->taps_first ? -2 : -1}};

	return pb_pack_constant(c->w_tensor, &key, packed_bytes(job), pack_weights, job);
}

/* ---- positions and taps ---- */

static void fill_taps(struct job *job)
{
	const struct pb_conv *c = job->c;
	const int64_t taps = tap_count(c);

	for (int64_t t = 0; t < taps; t++) {
		const int64_t at =
			t / c->kernel[2] / c->kernel[1] * c->dilation[0] * job->image.stride[0] +
			t / c->kernel[2] % c->kernel[1] * c->dilation[1] * job->image.stride[1] +
			t % c->kernel[2] * c->dilation[2] * job->image.stride[2];

		for (int64_t ch = 0; ch < c->icg; ch++)
			job->tap[job->taps_first ? t * c->icg + ch : ch * taps + t] =
				ch * job->image.channel + at;
	}
}

static int64_t row_offset(const struct job *job, int64_t d, int64_t h)
{
	return d * job->c->stride[0] * job->image.stride[0] +
	       h * job->c->stride[1] * job->image.stride[1];
}

static void fill_positions(struct job *job)
{
	const struct pb_conv *c = job->c;
	int64_t *p = job->position;

	for (int64_t i = 0; job->tall && i < PB_TILE_ANY_ROWS; i++)
		p[i] = i * job->step;
	if (job->tall)
		return;
	for (int64_t d = 0; d < c->out[0]; d++)
		for (int64_t h = 0; h < c->out[1]; h++)
			for (int64_t w = 0; w < c->out[2]; w++)
				*p++ = row_offset(job, d, h) + w * job->step;
}

/* How far positions go on at one distance: a row of the output, or more. */
static void find_run(struct job *job)
{
	const struct pb_conv *c = job->c;

	job->step = c->stride[2] * job->image.stride[2];
	job->run = c->out[2];
	for (int i = 1; i >= 0; i--) {
		if (c->out[i] > 1 && c->stride[i] * job->image.stride[i] != job->run * job->step)
			return;
		job->run *= c->out[i];
	}
}

static int64_t rows_limit(int vecs)
{
	return min64(pb_gemm_isa()->tile_acc / vecs, PB_TILE_MAX_ROWS);
}

/*
 * The shape of tiles. Where runs give low tiles, or registers allow no others, tiles may as well
 * cross the ends of runs; if low, then twice as wide: as many sums in registers, and fewer loads.
 */
static void choose_tile(struct job *job)
{
	const int64_t run_rows = div_up(job->run, div_up(job->run, rows_limit(2)));

	job->vecs = 2;
	job->max_rows = rows_limit(2);
	job->tall = run_rows > PB_TILE_ANY_ROWS;
	if (job->tall)
		return;
	job->run = job->positions;
	if (job->panels > 1 && rows_limit(4) >= 4)
		job->vecs = 4;
	job->max_rows = min64(rows_limit(job->vecs), PB_TILE_ANY_ROWS);
}

static struct spot spot_at(const struct job *job, int64_t run, int64_t i, int64_t rows)
{
	const int64_t line = run / job->c->out[2], height = job->c->out[1];

	if (!job->tall)
		return (struct spot){run + i, 0, job->position + run + i, rows};
	return (struct spot){run + i, row_offset(job, line / height, line % height) + i * job->step,
			     job->position, rows};
}

/* Tiles of as equal height as possible. */
static int64_t make_spots(struct job *job)
{
	int64_t n = 0;

	for (int64_t run = 0; run < job->positions; run += job->run) {
		for (int64_t i = 0; i < job->run; n++) {
			const int64_t left = job->run - i;
			const int64_t rows = div_up(left, div_up(left, job->max_rows));

			job->spots[n] = spot_at(job, run, i, rows);
			i += rows;
		}
	}
	return n;
}

/* Positions of a block. */
static int64_t block_limit(const struct job *job)
{
	return BLOCK_FLOATS / (job->vecs * pb_gemm_isa()->nr[0] / 2);
}

static void make_blocks(struct job *job, int64_t n_spots)
{
	const int64_t limit = block_limit(job);

	job->n_blocks = 0;
	for (int64_t i = 0; i < n_spots;) {
		struct block *b = &job->blocks[job->n_blocks++];

		*b = (struct block){i, 1};
		for (i++; i < n_spots &&
			  job->spots[i].at + job->spots[i].rows - job->spots[b->first].at <= limit;
		     i++)
			b->n++;
	}
}

/* ---- one block of positions times a few panels ---- */

struct columns {
	int64_t panel, first, n; /* n that exist */
	int64_t image;		 /* of those at hand */
	int vecs;
	float bias[MAX_COLUMNS];
};

static void columns_init(struct columns *cols, const struct job *job, int64_t part)
{
	const struct pb_conv *c = job->c;
	const int nr = pb_gemm_isa()->nr[0];

	cols->panel = part * (job->vecs / 2);
	cols->first = cols->panel * nr;
	cols->n = min64(c->ocg - cols->first, job->vecs * (nr / 2));
	cols->vecs = cols->n > nr ? 4 : cols->n > nr / 2 ? 2 : 1;
	memset(cols->bias, 0, sizeof(cols->bias));
	if (c->bias)
		memcpy(cols->bias, (const float *)c->bias + job->g * c->ocg + cols->first,
		       cols->n * sizeof(float));
}

/* The weights of one chunk. */
static void chunk_weights(const struct job *job, const struct columns *cols, int64_t k0, float *own,
			  struct pb_conv_tile *t)
{
	const int nr = pb_gemm_isa()->nr[0];
	const int64_t oc = job->g * job->c->ocg + cols->first;

	if (job->w) {
		t->w_panel = job->k * nr;
		t->w = job->w + (job->g * job->panels + cols->panel) * t->w_panel + k0 * nr;
		return;
	}
	t->w_panel = t->k * nr;
	t->w = own;
	for (int64_t j = 0; j < cols->n; j += nr, own += t->w_panel)
		pack_panel(job, oc + j, cols->n - j, k0, t->k, own);
}

/* The sums of all spots of a block over one chunk of k. */
static void run_chunk(const struct job *job, const struct block *b, const struct columns *cols,
		      struct pb_conv_tile *t)
{
	const float *x = job->image.x + cols->image * job->image_step, *init = t->init;
	float *out = t->out;
	const int64_t at0 = job->spots[b->first].at;

	for (int64_t i = b->first; i < b->first + b->n; i++) {
		const struct spot *s = &job->spots[i];

		t->x = x + s->x;
		t->row = s->row;
		t->init = init + (s->at - at0) * t->init_row;
		t->out = out + (s->at - at0) * t->out_row;
		pb_gemm_isa()->conv_tile(t, (int)s->rows, cols->vecs);
	}
}

static void write_rows(const struct job *job, const struct columns *cols, const float *sums,
		       int64_t row, int64_t n, float *y, int64_t y_row)
{
	if (job->c->ys[1] != 1 || y_row == 1) {
		pb_gemm_isa()->transpose(y, job->c->ys[1], sums, row, n, cols->n);
		return;
	}
	for (int64_t i = 0; i < n; i++)
		memcpy(y + i * y_row, sums + i * row, cols->n * sizeof(float));
}

static void run_block(const struct job *job, const struct block *b, const struct columns *cols,
		      float *sums)
{
	const struct pb_conv *c = job->c;
	const int nr = pb_gemm_isa()->nr[0];
	const int64_t row = cols->vecs * nr / 2, at = job->spots[b->first].at;
	const struct spot *last = &job->spots[b->first + b->n - 1];
	const int64_t chunks = div_up(job->k, CHUNK_FLOATS / (cols->vecs > 2 ? 2 * nr : nr));
	const int64_t kc = div_up(job->k, chunks), y_row = c->ys[4];
	const bool in_place = c->ys[1] == 1 && y_row != 1 && row == cols->n;
	float *y = (float *)c->y + (job->n + cols->image) * c->ys[0] + (job->g * c->ocg + cols->first) * c->ys[1] +
		   at * y_row;
	struct pb_conv_tile t = {.x_step = job->step};

	for (int64_t k0 = 0; k0 < job->k; k0 += kc) {
		const bool final = k0 + kc >= job->k;

		t.k = min64(kc, job->k - k0);
		t.tap = job->tap + k0;
		chunk_weights(job, cols, k0, sums + SUMS_FLOATS, &t);
		t.init = k0 ? sums : cols->bias;
		t.init_row = k0 ? row : 0;
		t.out = final && in_place ? y : sums;
		t.out_row = final && in_place ? y_row : row;
		run_chunk(job, b, cols, &t);
	}
	if (!in_place)
		write_rows(job, cols, sums, row, last->at + last->rows - at, y, y_row);
}

/*
 * Whichever is larger, weights or image, is read once: the other is read again and again, and
 * should stay in L2. Weights that are larger serve several images each time.
 */
static void run_part(void *arg, int part)
{
	const struct job *job = arg;
	const int64_t parts = div_up(job->panels, job->vecs / 2);
	const int64_t blocks = job->n_blocks * job->images, items = parts * blocks;
	float *sums = job->sums + part * (SUMS_FLOATS + CHUNK_FLOATS);

	for (int64_t i = items * part / job->threads; i < items * (part + 1) / job->threads; i++) {
		const int64_t p = job->weights_once ? i / blocks : i % parts;
		const int64_t b = job->weights_once ? i % blocks : i / parts;
		struct columns cols;

		columns_init(&cols, job, p);
		cols.image = b / job->n_blocks;
		run_block(job, &job->blocks[b % job->n_blocks], &cols, sums);
	}
}

/* ---- the whole ---- */

static size_t round64(size_t bytes)
{
	return (bytes + 63) & ~(size_t)63;
}

/* Is each chunk of weights used for one block only? Then it never needs to leave the cache. */
static bool used_once(const struct job *job)
{
	return job->c->batch == 1 && job->positions <= block_limit(job);
}

/* All memory of a job, as one piece. */
static char *job_memory(struct job *job)
{
	const size_t image = round64(job->images * job->image.elements * sizeof(float));
	const size_t weights = job->w || used_once(job) ? 0 : packed_bytes(job);
	const size_t sums = job->threads * (SUMS_FLOATS + CHUNK_FLOATS) * sizeof(float);
	const size_t taps = round64((job->k + job->positions + PB_TILE_ANY_ROWS) * sizeof(int64_t));
	const size_t spots = round64(job->positions * sizeof(struct spot));
	char *p = pb_rt_scratch(image + weights + sums + taps + spots +
				job->positions * sizeof(struct block));

	if (!p)
		return NULL;
	job->image.own = image ? (float *)p : NULL;
	job->w_own = weights ? (float *)(p + image) : NULL;
	job->sums = (float *)(p + image + weights);
	job->tap = (int64_t *)(p + image + weights + sums);
	job->position = job->tap + job->k;
	job->spots = (struct spot *)(p + image + weights + sums + taps);
	job->blocks = (struct block *)(p + image + weights + sums + taps + spots);
	return p;
}

static void fill_images(struct job *job)
{
	struct pb_conv_image im = job->image;

	for (int64_t i = 0; i < job->images && im.own; i++, im.own += job->image_step)
		pb_conv_image_fill(&im, job->c, job->n + i);
}

static void run_images(struct job *job)
{
	const struct pb_conv *c = job->c;
	struct pb_conv_image *im = &job->image;
	const int64_t at_once = job->images;

	for (job->n = 0; job->n < c->batch; job->n += job->images) {
		job->images = min64(at_once, c->batch - job->n);
		fill_images(job);
		for (job->g = 0; job->g < c->groups; job->g++) {
			im->x = im->own ? im->own : (const float *)c->x + job->n * c->xs[0];
			im->x += job->g * c->icg * im->channel;
			pb_parallel(job->threads, run_part, job);
		}
	}
}

static void choose_images(struct job *job)
{
	const struct pb_conv *c = job->c;
	const int64_t image = c->icg * c->in[0] * c->in[1] * c->in[2];

	job->weights_once = c->ocg * job->k > image;
	job->images = job->weights_once ? min64(c->batch, IMAGES_FLOATS / (image + 1) + 1) : 1;
	job->image_step = job->image.elements ? job->image.elements : c->xs[0];
}

int pb_conv_tiles(const struct pb_conv *c)
{
	struct job job = {.c = c, .k = c->icg * tap_count(c)};
	char *memory;

	if (job.k <= 0)
		return pb_conv_reference(c);
	job.taps_first = c->ws[1] == 1;
	job.w = constant_weights(&job);
	pb_conv_image_init(&job.image, c);
	find_run(&job);
	job.positions = c->out[0] * c->out[1] * c->out[2];
	job.panels = div_up(c->ocg, pb_gemm_isa()->nr[0]);
	choose_tile(&job);
	choose_images(&job);
	job.threads =
		pb_parallel_threads(2.0 * (double)job.positions * (double)job.k * (double)c->ocg);
	memory = job_memory(&job);
	if (!memory)
		return 1;
	if (job.w_own) {
		pack_weights(&job, job.w_own);
		job.w = job.w_own;
	}
	fill_taps(&job);
	fill_positions(&job);
	make_blocks(&job, make_spots(&job));
	run_images(&job);
	pb_rt_scratch_free(memory);
	return 0;
}
