/* SPDX-License-Identifier: Apache-2.0 */
/* See loaded.h. */
#include "tests/lib/loaded.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/tensors.h"

__thread struct pt2box_error test_error;

/* ---- fixtures ---- */

bool test_update_get(const char *fixture, size_t i, struct test_update *ret)
{
	static const char *const kinds[] = {"full", "partial", "swap"};
	json_t *o = json_load_file(fixture_path(fixture, "meta.json"), 0, NULL);
	const json_t *u = i < 3 ? json_object_get(json_object_get(o, "updates"), kinds[i]) : NULL;

	if (u) {
		snprintf(ret->kind, sizeof(ret->kind), "%s", kinds[i]);
		snprintf(ret->constants, sizeof(ret->constants), TEST_FIXTURES "/%s/%s", fixture,
			 json_string_value(json_object_get(u, "constants")));
		snprintf(ret->out, sizeof(ret->out), TEST_FIXTURES "/%s/%s", fixture,
			 json_string_value(json_object_get(u, "out")));
		ret->runs_before = (int)json_integer_value(json_object_get(u, "runs_before"));
	}
	json_decref(o);
	return u != NULL;
}

void loaded_open(struct loaded *l, struct pt2box *c, const char *fixture, uint32_t runners)
{
	struct pt2box_load_options opt = PT2BOX_LOAD_OPTIONS_INIT;

	memset(l, 0, sizeof(*l));
	assert_int_equal(test_fixture_load(fixture, &l->f), 0);
	if (!c)
		OK(pt2box_open(NULL, &l->own, &test_error));
	l->c = c ? c : l->own;
	if (runners)
		opt.runners = runners;
	opt.load_deadline_ms = 20000;
	if (l->f.constants[0])
		opt.constants_fd = open(l->f.constants, O_RDONLY | O_CLOEXEC);
	OK(pt2box_load_path(l->c, l->f.package, &opt, &l->m, &test_error));
	if (l->f.constants[0])
		close(opt.constants_fd);
	assert_int_equal(test_arrays_read(l->f.cases[0].in, l->f.cases[0].dtypes_in,
					  l->f.cases[0].n_in, &l->in),
			 0);
	fixture_tensors(NULL, &l->in, l->t);
	l->n_out = pt2box_model_n_outputs(l->m);
}

void loaded_close(struct loaded *l)
{
	for (size_t i = 0; i < l->in.n; i++)
		pt2box_tensor_free(l->t[i]);
	test_arrays_free(&l->in);
	pt2box_unload(l->m);
	pt2box_close(l->own);
}

enum pt2box_status loaded_run(struct loaded *l, struct pt2box_model *m)
{
	return pt2box_run(m, l->t, l->in.n, NULL, l->out, &test_error);
}

void loaded_free(struct loaded *l)
{
	for (size_t i = 0; i < l->n_out; i++) {
		pt2box_tensor_free(l->out[i]);
		l->out[i] = NULL;
	}
}

void loaded_gives(struct loaded *l, struct pt2box_model *m, const char *out_path)
{
	struct test_arrays want;

	assert_int_equal(
		test_arrays_read(out_path, l->f.cases[0].dtypes_out, l->f.cases[0].n_out, &want),
		0);
	OK(loaded_run(l, m));
	if (!fixture_equal(l->out, l->n_out, &want, l->f.rtol, l->f.atol))
		fail_msg("%s: not what is in %s", l->f.name, out_path);
	loaded_free(l);
	test_arrays_free(&want);
}

uint8_t *loaded_bits(struct loaded *l, size_t *ret_bytes)
{
	uint8_t *bits = NULL;
	size_t n = 0;

	OK(loaded_run(l, l->m));
	for (size_t i = 0; i < l->n_out; i++) {
		const struct pt2box_tensor_info *t = pt2box_tensor_get_info(l->out[i]);
		size_t bytes = (size_t)t->numel * pt2box_dtype_size(t->dtype);

		uint8_t *more = realloc(bits, n + bytes + 1);

		assert_non_null(more);
		bits = more;
		memcpy(bits + n, t->data, bytes);
		n += bytes;
	}
	loaded_free(l);
	*ret_bytes = n;
	return bits;
}

/* ---- constants ---- */

void test_constants_read(struct test_constants *c, const char *path)
{
	struct pt2box_tensor *t[TEST_ARRAYS_MAX];

	memset(c, 0, sizeof(*c));
	assert_int_equal(test_arrays_read(path, NULL, 0, &c->a), 0);
	fixture_tensors(NULL, &c->a, t);
	c->n = c->a.n;
	for (size_t i = 0; i < c->n; i++)
		c->list[i] = (struct pt2box_constant){c->a.v[i].name, t[i]};
}

void test_constants_free(struct test_constants *c)
{
	for (size_t i = 0; i < c->n; i++)
		pt2box_tensor_free(c->list[i].tensor);
	test_arrays_free(&c->a);
}

struct pt2box_tensor *test_constants_find(const struct pt2box_constant *list, size_t n,
					  const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i].name, name) == 0)
			return list[i].tensor;
	return NULL;
}

bool test_tensors_same(const struct pt2box_tensor *a, const struct pt2box_tensor *b)
{
	const struct pt2box_tensor_info *x = pt2box_tensor_get_info(a),
					*y = pt2box_tensor_get_info(b);
	const size_t bytes = pt2box_dtype_size(x->dtype);

	if (x->dtype != y->dtype || x->ndim != y->ndim ||
	    memcmp(x->sizes, y->sizes, (size_t)x->ndim * sizeof(x->sizes[0])) != 0)
		return false;
	for (int64_t i = 0; i < x->numel; i++) {
		int64_t at = i, p = 0, q = 0;

		for (int32_t d = x->ndim - 1; d >= 0; at /= x->sizes[d--]) {
			p += at % x->sizes[d] * x->strides[d];
			q += at % x->sizes[d] * y->strides[d];
		}
		if (memcmp((const uint8_t *)x->data + (size_t)p * bytes,
			   (const uint8_t *)y->data + (size_t)q * bytes, bytes) != 0)
			return false;
	}
	return true;
}

/* ---- processes ---- */

json_t *test_ps(struct pt2box *c)
{
	json_t *o;
	char *text;

	OK(pt2box_ps(c, &text, &test_error));
	o = json_loads(text, 0, NULL);
	assert_non_null(o);
	pt2box_free_text(text);
	return o;
}

static const json_t *find_process(const json_t *ps, const char *what, size_t worker)
{
	const json_t *m = json_array_get(json_object_get(ps, "models"), 0);

	if (strcmp(what, "worker") == 0)
		return json_array_get(json_object_get(m, "workers"), worker);
	return json_object_get(json_object_get(m, what) ? m : ps, what);
}

struct seen {
	pid_t pid;
	bool ready;
	long long
		deaths; /* so far: pids of processes that come and go are not told apart at once */
};

static struct seen see(struct pt2box *c, const char *what, size_t worker)
{
	const bool is_worker = strcmp(what, "worker") == 0;
	json_t *o = test_ps(c);
	const json_t *p = find_process(o, what, worker),
		     *m = json_array_get(json_object_get(o, "models"), 0);
	const char *state = json_string_value(json_object_get(is_worker ? p : m, "state"));
	struct seen s = {.pid = (pid_t)json_integer_value(json_object_get(p, "pid")),
			 .ready = state && strcmp(state, "ready") == 0,
			 .deaths = json_integer_value(is_worker ? json_object_get(p, "deaths")
								: json_object_get(m, "restarts"))};

	json_decref(o);
	return s;
}

pid_t test_ps_pid(struct pt2box *c, const char *what, size_t worker)
{
	return see(c, what, worker).pid;
}

void test_kill_and_wait(struct pt2box *c, const char *what, size_t worker)
{
	const long until = test_now_ms() + 10000;
	struct seen was = see(c, what, worker), now = was;

	assert_true(was.pid > 0);
	assert_int_equal(kill(was.pid, SIGKILL), 0);
	while (now.deaths == was.deaths || !now.ready || now.pid <= 0) {
		now = see(c, what, worker);
		if (test_now_ms() > until)
			fail_msg("%s %zu, killed, was not replaced", what, worker);
		usleep(2000);
	}
}

int test_programs_init(void)
{
	char dir[4096], real[4096];

	snprintf(dir, sizeof(dir), "%s/libexec", test_build_dir());
	if (!realpath(dir, real) || setenv("PT2BOX_LIBEXEC", real, 1))
		return -1;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return 0;
}
