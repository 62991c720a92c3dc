/* SPDX-License-Identifier: Apache-2.0 */
/* From a package to a model, with the peers played by the test: turns, names and metadata, code that is shared. */
#include <sys/resource.h>

#include "tests/unit/broker/world.h"

#define CODE_BYTES (2u << 20)

static int package(void)
{
	return memfd_create("package", MFD_CLOEXEC);
}

static void ask_load(uint64_t request)
{
	struct pb_msg_load m = {.request = request, .model = "model", .backend = "auto", .profile = "default",
				.runners = 1, .device = -1};
	int fd = package();

	say(w.client, PB_MSG_load, &m, &fd, 1);
	close(fd);
}

static void ask_names(uint64_t request)
{
	struct pb_msg_inspect m = {.request = request, .model = "model", .brief = 1};
	int fd = package();

	say(w.client, PB_MSG_inspect, &m, &fd, 1);
	close(fd);
}

/* However many loads are under way: names and metadata are read at once, and answered before the process has ended. */
static void test_names_do_not_wait(void **state)
{
	uint32_t load_id[PB_STARTS_PER_TENANT], id;
	int result;

	(void)state;
	world_begin();
	for (int i = 0; i < PB_STARTS_PER_TENANT + 2; i++)
		ask_load((uint64_t)i + 1);
	for (int i = 0; i < PB_STARTS_PER_TENANT; i++) {
		load_id[i] = (uint32_t)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_intake)->spawn_intake.id;
		pb_fds_close(&w.rx.fds);
	}
	expect_nothing(w.spawner, PB_SPAWNER);
	for (uint64_t n = 0; n < 3; n++) {
		ask_names(100 + n);
		id = (uint32_t)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_intake)->spawn_intake.id;
		assert_int_equal(w.rx.msg.spawn_intake.inspect, 2);
		give_manifest(w.rx.fds.fd[5], false);
		result = pb_fds_take(&w.rx.fds, 1);
		pb_fds_close(&w.rx.fds);
		assert_int_equal(write(result, "\x92", 1), 1); /* in two parts */
		expect_nothing(w.client, PB_CLIENT);
		assert_int_equal(write(result, "\0\xa0", 2), 2);
		close(result);
		assert_int_equal(expect(w.client, PB_CLIENT, PB_MSG_inspected)->inspected.request, 100 + n);
		assert_int_equal(pwrite(w.rx.fds.fd[0], "x", 1, 0), -1);
		pb_fds_close(&w.rx.fds);
		exited(id);
	}
	/* The next load's turn comes with the end of another. */
	exited(load_id[0]);
	(void)expect(w.client, PB_CLIENT, PB_MSG_failed);
	for (struct pb_model_rec *m = the_model(), *after; m; m = after) {
		after = m->next;
		(void)pb_model_tick(&w.b, m, pb_now_ns() + 10000000u);
	}
	assert_int_equal(expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_intake)->spawn_intake.inspect, 0);
	pb_fds_close(&w.rx.fds);
	expect_nothing(w.spawner, PB_SPAWNER);
	world_end();
}

static uint32_t code_is_read(void)
{
	uint32_t id = (uint32_t)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_intake)->spawn_intake.id;

	assert_int_equal(ftruncate(w.rx.fds.fd[3], CODE_BYTES), 0);
	give_manifest(w.rx.fds.fd[5], false);
	write_result(w.rx.fds.fd[1], PT2BOX_OK);
	pb_fds_close(&w.rx.fds);
	exited(id);
	return id;
}

/* The second of two packages that say that they are the same, believed or not; it may also be unloaded meanwhile. */
static void test_code_is_shared(void **state)
{
	(void)state;
	for (int how = 0; how < 3; how++) {
		uint32_t id;

		world_begin();
		ask_load(1);
		code_is_read();
		(void)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_warden); /* nothing to compare with */
		pb_fds_close(&w.rx.fds);
		w.spawn_id = (uint32_t)w.rx.msg.spawn_warden.id;
		ask_load(2);
		code_is_read();
		id = (uint32_t)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_compare)->spawn_compare.id;
		if (how < 2)
			write_result(w.rx.fds.fd[1], how ? PT2BOX_NOT_FOUND : PT2BOX_OK);
		pb_fds_close(&w.rx.fds);
		expect_nothing(w.spawner, PB_SPAWNER);
		if (how == 2) {
			pb_model_end(&w.b, the_model());
			exited(id);
			assert_int_equal(the_model()->code->refs, 2); /* and its constants, which are in it */
		} else {
			exited(id);
			(void)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_warden);
			pb_fds_close(&w.rx.fds);
			assert_int_equal(the_model()->code == the_model()->next->code, how == 0);
			assert_ptr_equal(the_model()->code, the_model()->active.memory);
			pb_model_end(&w.b, the_model());
			exited((uint32_t)w.rx.msg.spawn_warden.id);
		}
		world_end();
	}
}

/* No descriptor is free from here on. */
static rlim_t no_more_files(void)
{
	struct rlimit r;
	rlim_t was;
	int fd = dup(w.client);

	assert_true(fd >= 0 && getrlimit(RLIMIT_NOFILE, &r) == 0);
	close(fd);
	was = r.rlim_cur;
	r.rlim_cur = (rlim_t)fd;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &r), 0);
	return was;
}

static void files_again(rlim_t limit)
{
	struct rlimit r;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &r), 0);
	r.rlim_cur = limit;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &r), 0);
}

/* A broker that is short of descriptors: its own fault, not the model's, and no reason to end one that serves. */
static void test_no_descriptor_for_a_worker(void **state)
{
	struct pb_msg_ready ready = {.n_inputs = 1, .n_outputs = 1};
	rlim_t limit;

	(void)state;
	world_begin();
	ask_load(1);
	(void)code_is_read();
	w.spawn_id = (uint32_t)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_warden)->spawn_warden.id;
	w.warden = pb_fds_take(&w.rx.fds, 1);
	w.template = pb_fds_take(&w.rx.fds, 2);
	pb_fds_close(&w.rx.fds);
	limit = no_more_files();
	say(w.template, PB_MSG_ready, &ready, NULL, 0);
	files_again(limit);
	assert_int_equal(expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_kill)->spawn_kill.id, w.spawn_id);
	namespace_ends();
	assert_int_equal(expect(w.client, PB_CLIENT, PB_MSG_failed)->failed.status, PT2BOX_LIMIT);
	world_end();

	world_begin();
	load(1, false);
	limit = no_more_files();
	worker_dies(0, 9);
	files_again(limit);
	expect_nothing(w.spawner, PB_SPAWNER);
	(void)pb_model_tick(&w.b, the_model(), pb_now_ns() + 1000000000u);
	usleep(210000);
	(void)pb_model_tick(&w.b, the_model(), pb_now_ns());
	worker_is_ready(fork_comes());
	world_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_no_descriptor_for_a_worker),
		CHECK_TEST(test_names_do_not_wait),
		CHECK_TEST(test_code_is_shared),
	};

	return cmocka_run_group_tests_name("load", tests, NULL, NULL);
}
