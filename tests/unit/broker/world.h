/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A broker whose peers are all this test: it speaks as client, spawner, intake, warden, template and workers, so that
 * whatever can happen happens exactly when the test says so. No process is started.
 */
#ifndef TESTS_UNIT_BROKER_WORLD_H
#define TESTS_UNIT_BROKER_WORLD_H

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include "broker/broker.h"
#include "ipc/manifest.h"
#include "tests/lib/check.h"

#define CONST_BYTES 4096u

static struct {
	struct pb_broker b;
	int client, spawner;
	int warden, template;
	int worker[PB_WORKERS_MAX];
	uint32_t spawn_id; /* of the last warden */
	uint32_t intake_id;
	int intake_result, intake_out;
	uint64_t model;
	struct pb_rx rx;
} w;

/* The configuration of the next world; NULL: none. */
static const struct pb_service_conf *world_service;

/* Everything that waits for the broker. */
static inline void settle(void)
{
	struct epoll_event ev;

	while (epoll_wait(w.b.epoll, &ev, 1, 0) == 1) {
		struct pb_source *s = ev.data.ptr;

		s->ready(&w.b, s, ev.events);
	}
}

static inline struct pb_model_rec *the_model(void)
{
	return w.b.clients ? w.b.clients->models : NULL;
}

/* The next message to a peer; NULL: none. Its descriptors are the caller's. Kills are passed over by who expects others. */
static inline union pb_msg *next(int fd, enum pb_role to, int id)
{
	settle();
	do {
		if (pb_recv(fd, PB_BROKER, to, PB_STATE_ANY, true, &w.rx, NULL))
			return NULL;
	} while (w.rx.row->id == PB_MSG_spawn_kill && id != PB_MSG_spawn_kill);
	if (w.rx.row->id != id)
		fail_msg("%s came", w.rx.row->name);
	return &w.rx.msg;
}

static inline union pb_msg *expect(int fd, enum pb_role to, int id)
{
	union pb_msg *m = next(fd, to, id);

	if (!m)
		fail_msg("%s did not come", pb_msg_row((uint64_t)id)->name);
	return m;
}

static inline void expect_nothing(int fd, enum pb_role to)
{
	settle();
	if (pb_recv(fd, PB_BROKER, to, PB_STATE_ANY, true, &w.rx, NULL) == PT2BOX_OK)
		fail_msg("%s came", w.rx.row->name);
}

static inline void say(int fd, enum pb_msg_id id, const void *msg, const int *fds, size_t n)
{
	assert_int_equal(pb_send(fd, id, msg, fds, n, NULL), PT2BOX_OK);
	settle();
}

/* ---- intake ---- */

static inline void write_result(int fd, pb_status st)
{
	uint8_t result[3] = {0x92, (uint8_t)st, 0xa0};

	if (st > 127)
		abort();
	assert_int_equal(write(fd, result, 3), 3);
}

static inline void exited(uint32_t id)
{
	pb_model_exited(&w.b, &(struct pb_msg_exited){.id = id});
	settle();
}

static inline void give_manifest(int fd, bool mutates)
{
	struct pb_constant c = {.name = "w", .fqn = "w", .dtype = 6, .ndim = 1, .sizes = {1024}, .strides = {1},
				.data_size = CONST_BYTES, .type = PB_CONST_PARAMETER};
	const char *names[] = {"model"};
	struct pb_manifest m = {.model_name = "model", .model_names = names, .n_model_names = 1, .device = "cpu",
				.in_spec = "", .out_spec = "", .constants = &c, .n_constants = 1,
				.const_source = mutates ? PB_CONSTS_EMBEDDED_RW : PB_CONSTS_EMBEDDED_RO,
				.const_bytes = CONST_BYTES, .mutates = mutates, .so_bytes = CONST_BYTES,
				.cpu_isa = "", .cpu_needs = ""};
	uint8_t *data;
	size_t bytes;

	assert_int_equal(pb_manifest_encode(&m, &data, &bytes, NULL), PT2BOX_OK);
	assert_int_equal(write(fd, data, bytes), (ssize_t)bytes);
	free(data);
}

/* ---- the processes of a model ---- */

static inline void template_starts(void)
{
	struct pb_msg_ready ready = {.n_inputs = 1, .n_outputs = 1, .n_constants = 1};

	w.spawn_id = (uint32_t)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_warden)->spawn_warden.id;
	w.warden = pb_fds_take(&w.rx.fds, 1);
	w.template = pb_fds_take(&w.rx.fds, 2);
	pb_fds_close(&w.rx.fds);
	say(w.template, PB_MSG_ready, &ready, NULL, 0);
}

/* Obey one order to fork; returns the worker. */
static inline uint32_t fork_comes(void)
{
	uint32_t i = (uint32_t)expect(w.template, PB_TEMPLATE, PB_MSG_fork)->fork.worker;

	assert_int_equal(w.worker[i], -1);
	w.worker[i] = pb_fds_take(&w.rx.fds, 0);
	assert_int_equal(expect(w.warden, PB_WARDEN, PB_MSG_permit_fork)->permit_fork.worker, i);
	return i;
}

static inline void worker_is_ready(uint32_t i)
{
	say(w.worker[i], PB_MSG_worker_ready, &(struct pb_msg_worker_ready){.worker = i}, NULL, 0);
}

static inline void worker_dies(uint32_t i, int wait_status)
{
	struct pb_msg_worker_died m = {.worker = i, .wait_status = wait_status};

	pb_close_fd(&w.worker[i]);
	settle();
	say(w.warden, PB_MSG_worker_died, &m, NULL, 0);
}

static inline void namespace_ends(void)
{
	pb_close_fd(&w.template);
	for (int i = 0; i < PB_WORKERS_MAX; i++)
		pb_close_fd(&w.worker[i]);
	if (w.warden >= 0)
		(void)!pb_send(w.warden, PB_MSG_template_died, &(struct pb_msg_template_died){.wait_status = 6}, NULL, 0,
			       NULL);
	pb_close_fd(&w.warden);
	exited(w.spawn_id);
}

/* ---- the world ---- */

static inline void load(uint32_t runners, bool mutates)
{
	struct pb_msg_load m = {.request = 1, .model = "model", .backend = "auto", .profile = "default",
				.runners = runners, .device = -1};
	int package = memfd_create("package", MFD_CLOEXEC);
	uint32_t id;

	say(w.client, PB_MSG_load, &m, &package, 1);
	close(package);
	id = (uint32_t)expect(w.spawner, PB_SPAWNER, PB_MSG_spawn_intake)->spawn_intake.id;
	assert_int_equal(ftruncate(w.rx.fds.fd[3], CONST_BYTES), 0);
	give_manifest(w.rx.fds.fd[5], mutates);
	write_result(w.rx.fds.fd[1], PT2BOX_OK);
	pb_fds_close(&w.rx.fds);
	exited(id);
	template_starts();
	for (uint32_t i = 0; i < runners; i++)
		worker_is_ready(fork_comes());
	w.model = expect(w.client, PB_CLIENT, PB_MSG_loaded)->loaded.model;
	pb_fds_close(&w.rx.fds);
}

static inline void world_begin(void)
{
	struct pb_msg_hello hello = {.version = PB_PROTOCOL_VERSION, .program = "test"};
	int p[2], s[2];

	memset(&w, 0, sizeof(w));
	w.warden = w.template = w.intake_result = w.intake_out = -1;
	for (int i = 0; i < PB_WORKERS_MAX; i++)
		w.worker[i] = -1;
	w.b.config = (struct pb_config){.service = world_service, .embedded_fd = 0, .load_deadline_ms = 1000, .run_deadline_ms = 1000,
					.memory_bytes = 1 << 30};
	w.b.files_max = 1000;
	w.b.audit_fd = -1;
	assert_int_equal(pb_tenants_begin(&w.b, NULL), PT2BOX_OK);
	w.b.epoll = epoll_create1(EPOLL_CLOEXEC);
	w.b.listener.fd = w.b.signals.fd = w.b.parent.fd = -1;
	assert_int_equal(pb_memfd_from("empty", "", 0, &w.b.empty_fd, NULL), PT2BOX_OK);
	assert_int_equal(pb_socket_pair(s, NULL), PT2BOX_OK);
	w.b.spawner.fd = s[0];
	w.spawner = s[1];
	assert_int_equal(pb_socket_pair(p, NULL), PT2BOX_OK);
	w.client = p[1];
	assert_int_equal(pb_client_new(&w.b, p[0], NULL), PT2BOX_OK);
	say(w.client, PB_MSG_hello, &hello, NULL, 0);
	(void)expect(w.client, PB_CLIENT, PB_MSG_hello_ok);
}

/* Ends what is left, and looks whether the broker has let go of everything. */
static inline void world_end(void)
{
	struct pb_tenant *t = w.b.clients ? pb_tenant_ref(w.b.clients->tenant) : NULL;

	while (w.b.clients)
		pb_client_close(&w.b, w.b.clients);
	while (w.b.jobs)
		exited(w.b.jobs->spawn_id);
	if (w.b.orphans)
		exited(w.spawn_id);
	assert_null(w.b.orphans);
	assert_null(w.b.memories);
	for (int l = 0; t && l < PB_N_LIMITS; l++)
		if (t->used[l])
			fail_msg("%llu %s are still charged", (unsigned long long)t->used[l], pb_limit_text[l]);
	assert_true(!t || (t->reserved == 0 && t->ending == 0 && t->refs == 1));
	pb_tenant_unref(&w.b, t);
	assert_null(w.b.tenants);
	for (int i = 0; i < PB_WORKERS_MAX; i++)
		pb_close_fd(&w.worker[i]);
	pb_close_fd(&w.warden);
	pb_close_fd(&w.template);
	pb_close_fd(&w.intake_result);
	pb_close_fd(&w.intake_out);
	close(w.client);
	close(w.spawner);
	close(w.b.spawner.fd);
	close(w.b.epoll);
	close(w.b.empty_fd);
}

#endif
