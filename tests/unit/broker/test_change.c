/* SPDX-License-Identifier: Apache-2.0 */
/* A change of constants, step by step, with a death, an unload, a lie or a deadline at every step. */
#include <sys/wait.h>

#include "tests/unit/broker/world.h"

#define REQUEST 7

/* How far a change has come. */
enum step { AT_INTAKE, AT_TEMPLATE, AT_STAGING, AT_HALF_STAGED, AT_APPLYING, AT_HALF_APPLIED, N_STEPS };

static const char key[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

static void intake_begins(void)
{
	w.intake_id = (uint32_t)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_constants)->spawn_constants.id;
	w.intake_result = pb_fds_take(&w.rx.fds, 1);
	w.intake_out = pb_fds_take(&w.rx.fds, 4);
	pb_fds_close(&w.rx.fds);
}

static void intake_ends(uint64_t bytes, bool with_key)
{
	uint8_t result[4 + 64] = {0x92, 0, 0xd9, 64};

	assert_int_equal(ftruncate(w.intake_out, (off_t)bytes), 0);
	memcpy(result + 4, key, 64);
	if (with_key)
		assert_int_equal(write(w.intake_result, result, sizeof(result)), sizeof(result));
	else
		write_result(w.intake_result, PT2BOX_OK);
	pb_close_fd(&w.intake_result);
	pb_close_fd(&w.intake_out);
	exited(w.intake_id);
}

static void ask(enum pb_change change, bool inactive)
{
	struct pb_msg_change_constants m = {.request = REQUEST, .model = w.model, .change = change, .inactive = inactive};
	int file = memfd_create("constants", MFD_CLOEXEC);

	say(w.client, PB_MSG_change_constants, &m, &file, change == PB_CHANGE_UPDATE);
	close(file);
	if (change == PB_CHANGE_UPDATE)
		intake_begins();
}

static uint32_t template_makes(pb_status st)
{
	struct pb_msg_constants_done done = {.status = st, .text = "for a reason"};

	done.change_seq = expect(w.template, PB_TEMPLATE, PB_MSG_constants_apply)->constants_apply.change_seq;
	pb_fds_close(&w.rx.fds);
	expect_nothing(w.template, PB_TEMPLATE);
	say(w.template, PB_MSG_constants_done, &done, NULL, 0);
	return (uint32_t)done.change_seq;
}

static uint32_t stage(uint32_t i)
{
	struct pb_msg_constants_staged s;

	s.change_seq = expect(w.worker[i], PB_WORKER, PB_MSG_constants_stage)->constants_stage.change_seq;
	pb_fds_close(&w.rx.fds);
	say(w.worker[i], PB_MSG_constants_staged, &s, NULL, 0);
	return (uint32_t)s.change_seq;
}

static void apply(uint32_t i, uint32_t seq, pb_status st)
{
	say(w.worker[i], PB_MSG_constants_applied,
	    &(struct pb_msg_constants_applied){.change_seq = seq, .status = st}, NULL, 0);
}

static uint32_t committed(void)
{
	return atomic_load(&the_model()->board->committed);
}

static void done(void)
{
	assert_int_equal(expect(w.client, PB_CLIENT, PB_MSG_done)->done.request, REQUEST);
	assert_null(the_model()->change);
}

static void failed(pb_status st)
{
	const struct pb_msg_failed *f = &expect(w.client, PB_CLIENT, PB_MSG_failed)->failed;

	assert_int_equal(f->request, REQUEST);
	if (f->status != st)
		fail_msg("%s: %s", pt2box_status_name((pb_status)f->status), f->text);
	if (the_model())
		assert_null(the_model()->change);
}

/* A whole update of two workers. */
static void update(bool inactive)
{
	uint32_t seq;

	ask(PB_CHANGE_UPDATE, inactive);
	intake_ends(CONST_BYTES + 1, false);
	seq = template_makes(PT2BOX_OK);
	for (uint32_t i = 0; i < PB_WORKERS_MAX; i++)
		if (w.worker[i] >= 0)
			stage(i);
	assert_int_equal(committed(), seq);
	for (uint32_t i = 0; i < PB_WORKERS_MAX; i++)
		if (w.worker[i] >= 0)
			apply(i, seq, PT2BOX_OK);
	done();
}

static bool is_active_new(void)
{
	return the_model()->active.memory != the_model()->code;
}

static void test_update(void **state)
{
	(void)state;
	world_begin();
	load(2, false);
	update(false);
	assert_true(is_active_new());
	assert_null(the_model()->inactive.memory);
	update(true);
	assert_non_null(the_model()->inactive.memory);
	assert_int_equal(committed(), 2);
	world_end();
}

/* Bring a change to a step. Two workers: 0 and 1. */
static uint32_t bring_to(enum step to)
{
	uint32_t seq;

	ask(PB_CHANGE_UPDATE, false);
	if (to == AT_INTAKE)
		return 0;
	intake_ends(CONST_BYTES + 1, false);
	if (to == AT_TEMPLATE)
		return 0;
	seq = template_makes(PT2BOX_OK);
	if (to == AT_STAGING)
		return seq;
	stage(0);
	assert_int_equal(committed(), 0);
	if (to == AT_HALF_STAGED)
		return seq;
	stage(1);
	assert_int_equal(committed(), seq);
	expect_nothing(w.client, PB_CLIENT);
	if (to == AT_HALF_APPLIED)
		apply(1, seq, PT2BOX_OK);
	expect_nothing(w.client, PB_CLIENT);
	return seq;
}

/* Go on from a step, with the workers that there are. */
static void finish_from(enum step from, uint32_t seq)
{
	if (from == AT_INTAKE)
		intake_ends(CONST_BYTES + 1, false);
	if (from <= AT_TEMPLATE)
		seq = template_makes(PT2BOX_OK);
	for (uint32_t i = 0; i < 2; i++)
		if (w.worker[i] >= 0 && from <= AT_HALF_STAGED && !(from == AT_HALF_STAGED && i == 0))
			stage(i);
	assert_int_equal(committed(), seq);
	for (uint32_t i = 0; i < 2; i++)
		if (w.worker[i] >= 0 && !(from == AT_HALF_APPLIED && i == 1))
			apply(i, seq, PT2BOX_OK);
	done();
	assert_true(is_active_new());
}

static void test_worker_dies_at_every_step(void **state)
{
	(void)state;
	for (enum step at = 0; at < N_STEPS; at++) {
		uint32_t seq, successor;

		world_begin();
		load(2, false);
		seq = bring_to(at);
		worker_dies(0, 11);
		if (at == AT_TEMPLATE) { /* no fork while the template works */
			(void)template_makes(PT2BOX_OK);
			successor = fork_comes();
			worker_is_ready(successor); /* it has the change */
			expect_nothing(w.worker[successor], PB_WORKER);
			stage(1);
			apply(1, 1, PT2BOX_OK);
			done();
		} else if (at == AT_INTAKE) {
			successor = fork_comes();
			worker_is_ready(successor);
			finish_from(at, seq);
		} else if (at == AT_STAGING || at == AT_HALF_STAGED) {
			successor = fork_comes();
			expect_nothing(w.client, PB_CLIENT);
			stage(1);
			assert_int_equal(committed(), seq); /* does not wait for one that has the change */
			worker_is_ready(successor);
			expect_nothing(w.worker[successor], PB_WORKER);
			apply(1, seq, PT2BOX_OK);
			done();
		} else {
			successor = fork_comes();
			if (at == AT_APPLYING)
				apply(1, seq, PT2BOX_OK);
			done();
		}
		assert_int_equal(successor, 0);
		assert_true(is_active_new());
		world_end();
	}
}

/* One that was forked before the template made the change has to be staged, whenever it gets ready. */
static void test_forked_before(void **state)
{
	uint32_t seq;

	(void)state;
	for (int late = 0; late < 2; late++) {
		world_begin();
		load(2, false);
		worker_dies(0, 11);
		assert_int_equal(fork_comes(), 0);
		ask(PB_CHANGE_UPDATE, false);
		intake_ends(CONST_BYTES + 1, false);
		if (!late)
			worker_is_ready(0);
		seq = template_makes(PT2BOX_OK);
		stage(1);
		assert_int_equal(committed(), 0);
		if (late)
			worker_is_ready(0);
		stage(0);
		assert_int_equal(committed(), seq);
		apply(0, seq, PT2BOX_OK);
		apply(1, seq, PT2BOX_OK);
		done();
		world_end();
	}
}

/* Closed its socket, and may still claim runs: no commit before it is dead. */
static void test_dying_worker_is_waited_for(void **state)
{
	uint32_t seq;

	(void)state;
	world_begin();
	load(2, false);
	seq = bring_to(AT_STAGING);
	pb_close_fd(&w.worker[0]);
	stage(1);
	assert_int_equal(committed(), 0);
	worker_dies(0, 9);
	assert_int_equal(committed(), seq);
	world_end();
}

static void test_template_dies_at_every_step(void **state)
{
	(void)state;
	for (enum step at = 0; at < N_STEPS; at++) {
		world_begin();
		load(2, false);
		(void)bring_to(at);
		namespace_ends();
		if (at >= AT_APPLYING)
			done();
		else if (at >= AT_TEMPLATE)
			failed(PT2BOX_MODEL_CRASHED);
		assert_int_equal(committed(), at >= AT_APPLYING ? 1 : 0);
		assert_int_equal(is_active_new(), at >= AT_APPLYING);
		template_starts();
		if (at == AT_INTAKE) {
			assert_int_equal(fork_comes(), 0);
			intake_ends(CONST_BYTES + 1, false);
			(void)template_makes(PT2BOX_OK);
			worker_is_ready(0); /* forked before */
			stage(0);
			assert_int_equal(fork_comes(), 1);
			worker_is_ready(1); /* forked after */
			apply(0, 1, PT2BOX_OK);
			done();
		} else {
			worker_is_ready(fork_comes());
			worker_is_ready(fork_comes());
			update(false);
		}
		world_end();
	}
}

static void test_unload_at_every_step(void **state)
{
	struct pb_msg_unload u = {.request = REQUEST + 1};

	(void)state;
	for (enum step at = 0; at < N_STEPS; at++) {
		for (int client_goes = 0; client_goes < 2; client_goes++) {
			world_begin();
			load(2, false);
			(void)bring_to(at);
			u.model = w.model;
			if (client_goes) {
				pb_client_close(&w.b, w.b.clients);
			} else {
				say(w.client, PB_MSG_unload, &u, NULL, 0);
				failed(PT2BOX_CANCELLED);
				(void)expect(w.client, PB_CLIENT, PB_MSG_done);
				assert_int_equal(w.b.clients->tenant->used[PB_LIMIT_FDS], 0);
			}
			world_end();
		}
	}
}

/* What nobody may be made to wait for: the deadline ends it, by killing who is late. */
static void test_deadline_at_every_step(void **state)
{
	uint64_t late;

	(void)state;
	for (enum step at = 0; at < N_STEPS; at++) {
		uint32_t seq;

		world_begin();
		load(2, false);
		seq = bring_to(at);
		late = pb_now_ns() + 2000000000u;
		(void)pb_model_tick(&w.b, the_model(), late);
		if (at == AT_INTAKE) {
			failed(PT2BOX_MODEL_TIMEOUT);
		} else if (at == AT_TEMPLATE) {
			(void)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_kill);
			namespace_ends();
			failed(PT2BOX_MODEL_TIMEOUT);
			template_starts();
		} else {
			for (uint32_t i = 0; i < 2; i++) {
				if ((at == AT_HALF_STAGED && i == 0) || (at == AT_HALF_APPLIED && i == 1))
					continue;
				assert_int_equal(expect(w.warden, PB_WARDEN, PB_MSG_kill_worker)->kill_worker.worker, i);
			}
			expect_nothing(w.warden, PB_WARDEN);
			for (uint32_t i = 0; i < 2; i++)
				if (!(at == AT_HALF_STAGED && i == 0) && !(at == AT_HALF_APPLIED && i == 1))
					worker_dies(i, 9);
			if (at == AT_HALF_STAGED)
				apply(0, seq, PT2BOX_OK);
			done();
			assert_int_equal(committed(), seq);
		}
		world_end();
	}
}

static void test_failures(void **state)
{
	uint32_t seq;

	(void)state;
	world_begin();
	load(2, false);
	ask(PB_CHANGE_UPDATE, false); /* intake refuses it */
	write_result(w.intake_result, PT2BOX_NOT_FOUND);
	pb_close_fd(&w.intake_result);
	pb_close_fd(&w.intake_out);
	exited(w.intake_id);
	failed(PT2BOX_NOT_FOUND);
	ask(PB_CHANGE_UPDATE, false); /* intake says well, but its memory is not */
	intake_ends(CONST_BYTES, false);
	failed(PT2BOX_INTERNAL);
	ask(PB_CHANGE_UPDATE, false); /* the template cannot */
	intake_ends(CONST_BYTES + 1, false);
	(void)template_makes(PT2BOX_MODEL_ERROR);
	failed(PT2BOX_MODEL_ERROR);
	assert_int_equal(committed(), 0);
	assert_false(is_active_new());
	expect_nothing(w.worker[0], PB_WORKER);
	ask(PB_CHANGE_UPDATE, false); /* a worker cannot: it is replaced */
	intake_ends(CONST_BYTES + 1, false);
	seq = template_makes(PT2BOX_OK);
	stage(0);
	stage(1);
	apply(0, seq, PT2BOX_MODEL_ERROR);
	assert_int_equal(expect(w.warden, PB_WARDEN, PB_MSG_kill_worker)->kill_worker.worker, 0);
	apply(1, seq, PT2BOX_OK);
	done();
	worker_dies(0, 9);
	assert_int_equal(fork_comes(), 0);
	world_end();
}

/* Whoever says what cannot be so is killed, and nobody else. */
static void test_lies(void **state)
{
	static const struct {
		enum step at;
		uint32_t seq;
		bool staged;
	} lies[] = {
		{AT_INTAKE, 1, true},	{AT_INTAKE, 1, false}, {AT_TEMPLATE, 1, true}, {AT_TEMPLATE, 1, false},
		{AT_STAGING, 1, false}, {AT_STAGING, 2, true}, {AT_APPLYING, 2, false}, {AT_HALF_STAGED, 1, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		world_begin();
		load(2, false);
		(void)bring_to(lies[i].at);
		if (lies[i].staged)
			say(w.worker[0], PB_MSG_constants_staged,
			    &(struct pb_msg_constants_staged){.change_seq = lies[i].seq}, NULL, 0);
		else
			apply(0, lies[i].seq, PT2BOX_OK);
		assert_int_equal(expect(w.warden, PB_WARDEN, PB_MSG_kill_worker)->kill_worker.worker, 0);
		expect_nothing(w.client, PB_CLIENT);
		world_end();
	}
	world_begin();
	load(1, false);
	say(w.template, PB_MSG_constants_done, &(struct pb_msg_constants_done){.change_seq = 1}, NULL, 0);
	(void)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_kill);
	world_end();
}

/* What a new template is given, with each buffer in each place. */
static void test_replay(void **state)
{
	const struct pb_msg_constants_apply *a;

	(void)state;
	world_begin();
	load(1, false);
	update(true);
	namespace_ends();
	template_starts(); /* its own are active */
	a = &expect(w.template, PB_TEMPLATE, PB_MSG_constants_apply)->constants_apply;
	assert_true(a->change == PB_CHANGE_UPDATE && a->inactive && a->change_seq == 2);
	pb_fds_close(&w.rx.fds);
	expect_nothing(w.template, PB_TEMPLATE);
	say(w.template, PB_MSG_constants_done, &(struct pb_msg_constants_done){.change_seq = 2}, NULL, 0);
	assert_int_equal(committed(), 2);
	worker_is_ready(fork_comes());
	ask(PB_CHANGE_SWAP, false);
	(void)template_makes(PT2BOX_OK);
	stage(0);
	apply(0, 3, PT2BOX_OK);
	done();
	assert_true(is_active_new());
	namespace_ends();
	template_starts(); /* its own are inactive */
	assert_int_equal(template_makes(PT2BOX_OK), 4);
	a = &expect(w.template, PB_TEMPLATE, PB_MSG_constants_apply)->constants_apply;
	assert_true(a->change == PB_CHANGE_SWAP && a->change_seq == 5);
	say(w.template, PB_MSG_constants_done, &(struct pb_msg_constants_done){.change_seq = 5}, NULL, 0);
	assert_int_equal(committed(), 5);
	worker_is_ready(fork_comes());
	update(true);
	namespace_ends();
	w.spawn_id = (uint32_t)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_warden)->spawn_warden.id;
	assert_int_equal(w.rx.msg.spawn_warden.change_seq, 6);
	assert_int_equal(lseek(w.rx.fds.fd[4], 0, SEEK_END), CONST_BYTES + 1);
	pb_fds_close(&w.rx.fds);
	world_end();
}

/* The second of two updates with the same bytes; a claim that is not true; and an unload while they are compared. */
static void test_sharing(void **state)
{
	(void)state;
	for (int how = 0; how < 4; how++) {
		uint32_t id, seq;

		world_begin();
		load(1, false);
		the_model()->const_bytes = 1 << 20;
		ask(PB_CHANGE_UPDATE, false);
		intake_ends((1 << 20) + 1, true);
		seq = template_makes(PT2BOX_OK);
		stage(0);
		apply(0, seq, PT2BOX_OK);
		done();
		ask(PB_CHANGE_UPDATE, true);
		intake_ends((1 << 20) + 1, true);
		id = (uint32_t)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_compare)->spawn_compare.id;
		if (how < 2)
			write_result(w.rx.fds.fd[1], how ? PT2BOX_NOT_FOUND : PT2BOX_OK);
		pb_fds_close(&w.rx.fds);
		if (how == 2) {
			pb_model_end(&w.b, the_model());
			failed(PT2BOX_CANCELLED);
		} else if (how == 3) { /* no word from it: the same as "they differ" */
			exited(id);
			(void)template_makes(PT2BOX_OK);
		} else {
			exited(id);
			seq = template_makes(PT2BOX_OK);
			stage(0);
			apply(0, seq, PT2BOX_OK);
			done();
			assert_int_equal(the_model()->inactive.memory == the_model()->active.memory, how == 0);
		}
		world_end();
	}
}

/* Old workers give way to fresh ones, one after the other, and are not counted as dead. */
static void test_rolling(void **state)
{
	static const struct {
		uint32_t fresh, old;
	} rounds[] = {{2, 1}, {3, 0}};

	(void)state;
	world_begin();
	load(2, false);
	update(false);
	expect_nothing(w.template, PB_TEMPLATE); /* another change might follow */
	for (int i = 0; i < 2; i++) {
		the_model()->roll_ns = 0;
		(void)pb_model_tick(&w.b, the_model(), pb_now_ns());
		assert_int_equal(fork_comes(), rounds[i].fresh);
		expect_nothing(w.worker[rounds[i].old], PB_WORKER);
		worker_is_ready(rounds[i].fresh);
		(void)expect(w.worker[rounds[i].old], PB_WORKER, PB_MSG_retire);
		/* Its end is no news to anybody. */
		worker_dies(rounds[i].old, W_EXITCODE(0, 0));
	}
	(void)pb_model_tick(&w.b, the_model(), pb_now_ns());
	expect_nothing(w.template, PB_TEMPLATE);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(the_model()->worker[i].deaths, 0);
	world_end();
}

/* A fresh one that dies leaves all as it was; one that does not retire is killed. */
static void test_rolling_fails(void **state)
{
	(void)state;
	world_begin();
	load(1, false);
	update(false);
	the_model()->roll_ns = 0;
	(void)pb_model_tick(&w.b, the_model(), pb_now_ns());
	assert_int_equal(fork_comes(), 1);
	worker_dies(1, 11);
	(void)pb_model_tick(&w.b, the_model(), pb_now_ns());
	expect_nothing(w.template, PB_TEMPLATE);
	expect_nothing(w.worker[0], PB_WORKER);
	update(false);
	the_model()->roll_ns = 0;
	(void)pb_model_tick(&w.b, the_model(), pb_now_ns());
	worker_is_ready(fork_comes());
	(void)expect(w.worker[0], PB_WORKER, PB_MSG_retire);
	(void)pb_model_tick(&w.b, the_model(), pb_now_ns() + 5000000000u);
	assert_int_equal(expect(w.warden, PB_WARDEN, PB_MSG_kill_worker)->kill_worker.worker, 0);
	worker_dies(0, 9);
	expect_nothing(w.template, PB_TEMPLATE);
	assert_int_equal(the_model()->worker[0].deaths, 0);
	world_end();
}

/* ---- sessions ---- */

static uint64_t open_session(void)
{
	uint32_t i;

	say(w.client, PB_MSG_session_open, &(struct pb_msg_session_open){.request = REQUEST, .model = w.model}, NULL, 0);
	i = fork_comes();
	expect_nothing(w.client, PB_CLIENT);
	worker_is_ready(i);
	return expect(w.client, PB_CLIENT, PB_MSG_session)->session.session;
}

static uint64_t open_lane(uint64_t session)
{
	struct pb_msg_lane_open m = {.request = REQUEST, .model = w.model, .session = session};
	uint64_t id;

	say(w.client, PB_MSG_lane_open, &m, NULL, 0);
	id = expect(w.client, PB_CLIENT, PB_MSG_lane)->lane.lane;
	pb_fds_close(&w.rx.fds);
	return id;
}

static void expect_attach(uint32_t i, uint64_t lane)
{
	assert_int_equal(expect(w.worker[i], PB_WORKER, PB_MSG_attach)->attach.lane, lane);
	pb_fds_close(&w.rx.fds);
	expect_nothing(w.worker[i], PB_WORKER);
}

/* A lane is a session's own, whoever lives or dies; a state that is lost is told where it was. */
static void test_sessions(void **state)
{
	struct pb_msg_session_close close_msg;
	uint64_t lane[3], session[3] = {0};

	(void)state;
	world_begin();
	load(1, true);
	for (uint32_t i = 0; i < 3; i++) {
		if (i)
			session[i] = open_session();
		(void)expect(w.worker[i], PB_WORKER, PB_MSG_copy_inputs); /* it has state */
		lane[i] = open_lane(session[i]);
		expect_attach(i, lane[i]);
	}
	assert_true(session[1] && session[2] > session[1]);
	worker_dies(1, 11);
	assert_int_equal(fork_comes(), 1);
	worker_is_ready(1);
	assert_non_null(strstr(expect(w.worker[1], PB_WORKER, PB_MSG_state_lost)->state_lost.text, "SIGSEGV"));
	(void)expect(w.worker[1], PB_WORKER, PB_MSG_copy_inputs);
	expect_attach(1, lane[1]);
	expect_nothing(w.worker[0], PB_WORKER);
	expect_nothing(w.worker[2], PB_WORKER);
	close_msg = (struct pb_msg_session_close){.model = w.model, .session = session[1]};
	say(w.client, PB_MSG_session_close, &close_msg, NULL, 0);
	assert_int_equal(expect(w.warden, PB_WARDEN, PB_MSG_kill_worker)->kill_worker.worker, 1);
	worker_dies(1, 9);
	expect_nothing(w.template, PB_TEMPLATE); /* nobody wants another */
	assert_int_equal(open_session(), session[2] + 1); /* at the same place, and nothing of the other */
	(void)expect(w.worker[1], PB_WORKER, PB_MSG_copy_inputs);
	expect_nothing(w.worker[1], PB_WORKER);
	world_end();
}

static void test_session_that_cannot_be(void **state)
{
	(void)state;
	world_begin();
	load(1, true);
	say(w.client, PB_MSG_session_open, &(struct pb_msg_session_open){.request = REQUEST, .model = w.model}, NULL, 0);
	assert_int_equal(fork_comes(), 1);
	worker_dies(1, 11);
	failed(PT2BOX_MODEL_CRASHED);
	expect_nothing(w.template, PB_TEMPLATE);
	assert_null(the_model()->sessions);
	world_end();
}

/* ---- values ---- */

static void ask_values(bool inactive)
{
	struct pb_msg_read_constants m = {.request = REQUEST, .model = w.model, .inactive = inactive};

	say(w.client, PB_MSG_read_constants, &m, NULL, 0);
}

static void test_values(void **state)
{
	struct pb_msg_constants_extracted x = {.id = 0};
	void *held;
	int fd;

	(void)state;
	world_begin();
	load(1, false);
	ask_values(false);
	x.id = expect(w.worker[0], PB_WORKER, PB_MSG_constants_extract)->constants_extract.id;
	assert_int_equal(pwrite(w.rx.fds.fd[0], "abc", 3, 0), 3);
	assert_int_equal(ftruncate(w.rx.fds.fd[0], 1), -1);
	pb_fds_close(&w.rx.fds);
	say(w.worker[0], PB_MSG_constants_extracted, &x, NULL, 0);
	(void)expect(w.client, PB_CLIENT, PB_MSG_constants_values);
	fd = pb_fds_take(&w.rx.fds, 0);
	assert_int_equal(lseek(fd, 0, SEEK_END), CONST_BYTES + 1);
	assert_int_equal(write(fd, "x", 1), -1);
	close(fd);
	ask_values(true); /* empty: nobody is asked */
	(void)expect(w.client, PB_CLIENT, PB_MSG_constants_values);
	pb_fds_close(&w.rx.fds);
	expect_nothing(w.worker[0], PB_WORKER);
	ask_values(false); /* it keeps a way to write */
	x.id = expect(w.worker[0], PB_WORKER, PB_MSG_constants_extract)->constants_extract.id;
	held = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, w.rx.fds.fd[0], 0);
	assert_true(held != MAP_FAILED);
	pb_fds_close(&w.rx.fds);
	say(w.worker[0], PB_MSG_constants_extracted, &x, NULL, 0);
	failed(PT2BOX_MODEL_PROTOCOL);
	assert_int_equal(expect(w.warden, PB_WARDEN, PB_MSG_kill_worker)->kill_worker.worker, 0);
	munmap(held, 4096);
	worker_dies(0, 9);
	assert_int_equal(fork_comes(), 0);
	ask_values(false); /* waits for a worker; and that one dies */
	worker_is_ready(0);
	(void)expect(w.worker[0], PB_WORKER, PB_MSG_constants_extract);
	pb_fds_close(&w.rx.fds);
	worker_dies(0, 11);
	failed(PT2BOX_MODEL_CRASHED);
	assert_int_equal(w.b.clients->tenant->used[PB_LIMIT_FDS], the_model()->charges.files);
	world_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_update),
		CHECK_TEST(test_worker_dies_at_every_step),
		CHECK_TEST(test_forked_before),
		CHECK_TEST(test_dying_worker_is_waited_for),
		CHECK_TEST(test_template_dies_at_every_step),
		CHECK_TEST(test_unload_at_every_step),
		CHECK_TEST(test_deadline_at_every_step),
		CHECK_TEST(test_failures),
		CHECK_TEST(test_lies),
		CHECK_TEST(test_replay),
		CHECK_TEST(test_sharing),
		CHECK_TEST(test_rolling),
		CHECK_TEST(test_rolling_fails),
		CHECK_TEST(test_sessions),
		CHECK_TEST(test_session_that_cannot_be),
		CHECK_TEST(test_values),
	};

	return cmocka_run_group_tests_name("change", tests, NULL, NULL);
}
