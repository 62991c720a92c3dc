/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libpt2box against the real programs: packages that torch made give torch's outputs, memory is shared, kept and given
 * back as the header says, and every way in which a run, a client or a broker can end has its status.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/check.h"
#include "tests/lib/broker.h"
#include "tests/lib/fixture.h"
#include "tests/lib/package.h"

#define OK(call)                                                                                                       \
	do {                                                                                                           \
		struct pt2box_error e = {.status = PT2BOX_OK};                                                         \
		enum pt2box_status st_ = call;                                                                         \
		if (st_)                                                                                               \
			fail_msg("%s: %s: %s", #call, pt2box_status_name(st_), e.text);                                \
	} while (0)

struct subject {
	struct pt2box *c;
	struct pt2box_model *m;
	struct pt2box_tensor *in[8], *out[64];
	size_t n_in, n_out;
	struct fixture_arrays arrays, want;
};

static void subject_open(struct subject *s, const char *fixture, const struct pt2box_load_options *opt)
{
	memset(s, 0, sizeof(*s));
	OK(pt2box_open(NULL, &s->c, &e));
	OK(pt2box_load_path(s->c, fixture_path(fixture, "model.pt2"), opt, &s->m, &e));
	s->n_out = pt2box_model_n_outputs(s->m);
}

static void subject_inputs(struct subject *s, const char *fixture, const char *in, const char *out, bool in_lane)
{
	fixture_read(fixture, in, &s->arrays);
	fixture_read(fixture, out, &s->want);
	s->n_in = s->arrays.n;
	fixture_tensors(in_lane ? s->m : NULL, &s->arrays, s->in);
}

static void free_outputs(struct subject *s)
{
	for (size_t i = 0; i < s->n_out; i++)
		pt2box_tensor_free(s->out[i]);
}

static void subject_free_inputs(struct subject *s)
{
	for (size_t i = 0; i < s->n_in; i++)
		pt2box_tensor_free(s->in[i]);
	fixture_free(&s->arrays);
	fixture_free(&s->want);
}

static void subject_close(struct subject *s)
{
	pt2box_unload(s->m);
	pt2box_close(s->c);
}

static void run_equal(struct subject *s)
{
	OK(pt2box_run(s->m, s->in, s->n_in, NULL, s->out, &e));
	assert_true(fixture_equal(s->out, s->n_out, &s->want, 1e-4, 1e-5));
}

static void test_mlp(void **state)
{
	static const char *const in[] = {"in.npz", "in_1.npz", "in_2.npz", "in_3.npz"};
	static const char *const out[] = {"out.npz", "out_1.npz", "out_2.npz", "out_3.npz"};
	struct subject s;

	(void)state;
	subject_open(&s, "mlp", NULL);
	assert_int_equal(pt2box_model_n_inputs(s.m), 1);
	assert_int_equal(pt2box_model_input_dtype(s.m, 0), PT2BOX_FLOAT32);
	assert_int_equal(pt2box_model_input_dtype(s.m, 1), -1);
	for (int i = 0; i < 8; i++) {
		subject_inputs(&s, "mlp", in[i / 2], out[i / 2], i % 2);
		run_equal(&s);
		free_outputs(&s);
		subject_free_inputs(&s);
	}
	subject_close(&s);
}

int main(void)
{
	char dir[4096], real[4096];
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_mlp),
	};

	snprintf(dir, sizeof(dir), "%s/libexec", test_build_dir());
	if (!realpath(dir, real) || setenv("PT2BOX_LIBEXEC", real, 1))
		return 1;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
