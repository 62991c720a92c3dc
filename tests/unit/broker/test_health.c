/* SPDX-License-Identifier: Apache-2.0 */
/* Workers that die at every start: replaced more and more slowly, and the model is said to be in quarantine. */
#include <signal.h>
#include <stdio.h>

#include "tests/unit/broker/world.h"

#define SECOND 1000000000ull

static int begin(void **state)
{
	(void)state;
	world_begin();
	return 0;
}

static int end(void **state)
{
	(void)state;
	world_end();
	return 0;
}

static const char *health(uint64_t later_ns)
{
	return pb_health_name(the_model(), pb_now_ns() + later_ns);
}

static void test_quarantine(void **state)
{
	const struct pb_model_rec *m;

	(void)state;
	load(1, false);
	m = the_model();
	assert_string_equal(health(0), "healthy");
	assert_int_equal(m->health.status, PT2BOX_OK);
	for (int i = 0; i < PB_QUICK_DEATHS; i++) {
		worker_dies(0, SIGSEGV);
		assert_string_equal(health(0), "degraded");
		worker_is_ready(fork_comes());
	}
	/* No more at once: it does not spin. */
	worker_dies(0, SIGSEGV);
	expect_nothing(w.template, PB_TEMPLATE);
	assert_string_equal(health(0), "quarantined");
	assert_int_equal(m->health.status, PT2BOX_MODEL_CRASHED);
	assert_int_equal(m->health.signal, SIGSEGV);
	assert_non_null(strstr(m->health.text, "SIGSEGV"));
	assert_int_equal(m->health.deaths[PT2BOX_MODEL_CRASHED], PB_QUICK_DEATHS + 1);
	/* In time another; once it has lived for a while all is well again, if less so for a minute. */
	usleep(5000);
	pb_workers_tick(&w.b, the_model(), pb_now_ns());
	worker_is_ready(fork_comes());
	assert_string_equal(health(0), "quarantined");
	assert_string_equal(health(3 * SECOND), "degraded");
	assert_string_equal(health(100 * SECOND), "healthy");
}

/* One of two: the other serves. */
static void test_half(void **state)
{
	(void)state;
	load(2, false);
	for (int i = 0; i < PB_QUICK_DEATHS; i++) {
		worker_dies(1, 7 << 8);
		worker_is_ready(fork_comes());
	}
	worker_dies(1, 7 << 8);
	expect_nothing(w.template, PB_TEMPLATE);
	assert_string_equal(health(100 * SECOND), "degraded");
	assert_int_equal(the_model()->health.deaths[PT2BOX_MODEL_EXITED], PB_QUICK_DEATHS + 1);
}

/* The template is loaded again a few times, and then no more. */
static void test_template(void **state)
{
	int n = 0;

	(void)state;
	load(1, false);
	while (the_model()->state != PB_M_BROKEN) {
		assert_true(++n < 20);
		namespace_ends();
		if (the_model()->state == PB_M_BROKEN)
			break;
		assert_string_equal(health(100 * SECOND), "degraded");
		template_starts();
		worker_is_ready(fork_comes());
	}
	assert_string_equal(health(100 * SECOND), "quarantined");
	assert_int_equal(the_model()->health.deaths[PT2BOX_MODEL_CRASHED], n);
	assert_int_equal(the_model()->restarts, n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_quarantine, begin, end),
		cmocka_unit_test_setup_teardown(test_half, begin, end),
		cmocka_unit_test_setup_teardown(test_template, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
