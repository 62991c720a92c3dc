/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The template, in the order of confinement: trusted libraries and their warm-up, the sandbox, the gate, dlopen without
 * a constructor, the run filter, and only then the first untrusted instruction. Afterwards it forks workers.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "confine/confine.h"
#include "confine/elf_gate.h"
#include "confine/fork_sibling.h"
#include "ipc/fdmap.h"
#include "ipc/socket.h"
#include "torch/library.h"
#include "worker/interpose.h"
#include "worker/nodes.h"
#include "worker/roles.h"
#include "worker/serve.h"
#include "worker/torch_executor.h"

static void tell_phase(enum pb_load_phase phase)
{
	struct pb_msg_phase m = {.phase = phase};

	(void)!pb_write(PB_FD_TEMPLATE_CTL, PB_MSG_phase, &m, NULL);
}

static _Noreturn void give_up(const struct pt2box_error *e)
{
	struct pb_msg_load_failed m = {.status = e->status};

	snprintf(m.text, sizeof(m.text), "%s", e->text);
	(void)!pb_write(PB_FD_TEMPLATE_CTL, PB_MSG_load_failed, &m, NULL);
	_exit(1);
}

static void tell_layers(void)
{
	char *text = pb_confine_report_text();
	struct pb_msg_layers m = {.report = {(const uint8_t *)text, text ? (uint32_t)strlen(text) : 0}};

	(void)!pb_write(PB_FD_TEMPLATE_CTL, PB_MSG_layers, &m, NULL);
	free(text);
}

/* There is no lane yet to say it in: a model that dies while loading, after this, died for want of memory. */
static void refused_while_loading(void)
{
	struct pb_msg_load_failed m = {.status = PT2BOX_MODEL_OOM,
				       .text = "the model was refused memory while it loaded"};

	(void)!pb_write(PB_FD_TEMPLATE_CTL, PB_MSG_load_failed, &m, NULL);
}

static uint64_t size_of(int fd)
{
	struct stat sb;

	return fstat(fd, &sb) == 0 ? (uint64_t)sb.st_size : 0;
}

static void *map_readonly(int fd, uint64_t bytes)
{
	void *p = bytes ? mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0) : NULL;

	return p == MAP_FAILED ? NULL : p;
}

struct template {
	struct pb_backend backend;
	struct pb_manifest *manifest;
	struct pb_model model;
	const struct pb_board *board;
	uint64_t consts_bytes;
	struct pb_confine_spec spec;
};

static bool is_torch(const struct pb_worker_options *o)
{
	return strcmp(o->backend, "torch") == 0;
}

/* Everything that needs files or many calls, while both are there. Trusted code only. */
static pb_status prepare(struct template *t, const struct pb_worker_options *o, struct pt2box_error *err)
{
	pb_status st;

	st = pb_fork_sibling_prepare(err);
	if (st)
		return st;
	/* One arena: memory that a loading thread frees is the next one's. Big blocks stay: touching them anew is dear. */
	mallopt(M_ARENA_MAX, 1);
	st = o->lapack && !is_torch(o) ? pb_backend_load_lapack(err) : PT2BOX_OK;
	if (!st)
		st = pb_backend_load(&t->backend, o->runtime, err);
	if (!st && is_torch(o))
		st = pb_torch_attach(&t->backend, strcmp(o->profile, "strict") == 0, err);
	if (st)
		return st;
	st = pb_backend_warm_up(&t->backend, (int)o->threads, err);
	if (st)
		return st;
	if (t->backend.set_memory_limit)
		t->backend.set_memory_limit(o->memory_bytes);
	t->board = map_readonly(PB_FD_BOARD, PB_BOARD_BYTES);
	t->consts_bytes = size_of(PB_FD_CONSTANTS);
	if (!t->board)
		return pb_error_sys(err, "cannot map the board");
	close(PB_FD_BOARD);
	return PT2BOX_OK;
}

static pb_status read_manifest(struct template *t, struct pt2box_error *err)
{
	pb_status st = pb_manifest_read(PB_FD_MANIFEST, &t->manifest, err);

	if (!st)
		close(PB_FD_MANIFEST);
	return st;
}

/* The file is sealed, but intake, which wrote it, had hostile bytes before it: look again. */
static pb_status check_gate(struct pt2box_error *err)
{
	uint64_t bytes = size_of(PB_FD_MODEL);
	void *file = map_readonly(PB_FD_MODEL, bytes);
	struct pb_elf_facts facts;
	pb_status st;

	if (!file)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "elf.empty: the model has no code");
	st = pb_elf_gate(file, bytes, PB_ELF_PATCHED, &facts, err);
	pb_elf_facts_deinit(&facts);
	munmap(file, bytes);
	return st;
}

/*
 * Some of PyTorch's templates (attention) have a place for each thread in memory that was sized when they were compiled, for
 * a number that the package does not tell.
 */
static bool counts_threads(const struct pb_manifest *m)
{
	for (uint32_t i = 0; i < m->n_imports; i++)
		if (strcmp(m->imports[i].name, "_ZN2at14get_thread_numEv") == 0)
			return true;
	return false;
}

static void env_for_model(struct template *t, const struct pb_worker_options *o)
{
	char n[16];
	uint32_t threads = o->threads;

	/* More threads than a package was compiled for can crash it. */
	if (t->manifest->openmp_threads && threads > t->manifest->openmp_threads)
		threads = t->manifest->openmp_threads;
	if (!t->manifest->openmp_threads && counts_threads(t->manifest))
		threads = 1;
	snprintf(n, sizeof(n), "%u", threads);
	setenv("OMP_NUM_THREADS", n, 1);
	t->backend.team = (int)threads;
	/* Without a signature to check against, the checks that are compiled into the model do it. */
	if (!t->manifest->has_signature)
		setenv("AOTI_RUNTIME_CHECK_INPUTS", "1", 1);
}

static pb_status load(struct template *t, const struct pb_worker_options *o, struct pt2box_error *err)
{
	const struct pb_forked untrusted = {.worker = PB_UNTRUSTED};
	void *proxy = NULL;
	bool own_file;
	pb_status st;

	tell_phase(PB_PHASE_CONFINE);
	t->spec = pb_worker_confinement(o, o->threads);
	st = pb_confine_template(&t->spec, err);
	if (!st)
		st = read_manifest(t, err);
	if (st)
		return st;
	if (t->spec.threads < t->manifest->openmp_threads)
		t->spec.threads = t->manifest->openmp_threads;
	env_for_model(t, o);
	st = is_torch(o) ? pb_torch_executor(&t->backend, t->manifest, o->ops, &proxy, err) :
			   pb_nodes_give(&t->backend, t->manifest, err);
	if (st)
		return st;
	tell_phase(PB_PHASE_GATE);
	st = check_gate(err);
	if (st)
		return st;
	tell_phase(PB_PHASE_DLOPEN);
	st = pb_model_dlopen(&t->model, &t->backend, t->manifest, err);
	if (!st)
		st = pb_constants_prepare(&t->model, PB_FD_CONSTANTS, t->consts_bytes, err);
	if (st)
		return st;
	close(PB_FD_CONSTANTS);
	t->model.proxy = proxy;
	t->model.constants.change_seq = o->change_seq;
	own_file = t->manifest->const_source == PB_CONSTS_MMAP_SELF;
	if (!own_file)
		close(PB_FD_MODEL);
	pb_interpose_model_file(own_file);
	pb_serve_install_fault_handler();
	st = pb_confine_run(&t->spec, err);
	if (st)
		return st;
	tell_layers();
	/* From here on untrusted code runs. The warden reads this before it looks at any call that comes after it. */
	if (write(PB_FD_WARDEN_LINK, &untrusted, sizeof(untrusted)) != sizeof(untrusted))
		return pb_error_sys(err, "the warden is gone");
	pb_interpose_on_refusal(refused_while_loading);
	tell_phase(PB_PHASE_CONSTRUCTORS);
	pb_model_construct(&t->model);
	tell_phase(PB_PHASE_CONTAINER);
	st = pb_model_create(&t->model, err);
	if (st)
		return st;
	tell_phase(PB_PHASE_CONSTANTS);
	pb_model_dry_run(&t->model);
	if (t->backend.trim)
		t->backend.trim();
	return PT2BOX_OK;
}

static void nothing(void *arg)
{
	(void)arg;
}

/* The team that the serving thread will lead, started while threads may still start. Waits in libgomp from then on. */
static void start_team(unsigned threads)
{
	void (*parallel)(void (*)(void *), void *, unsigned, unsigned) =
		(void (*)(void (*)(void *), void *, unsigned, unsigned))dlsym(RTLD_DEFAULT, "GOMP_parallel");

	if (parallel && threads > 1)
		parallel(nothing, NULL, threads, 0);
}

static _Noreturn void become_worker(struct template *t, uint32_t worker)
{
	close(PB_FD_TEMPLATE_CTL);
	close(PB_FD_WARDEN_LINK);
	if (t->spec.strict)
		start_team(t->spec.threads);
	pb_backend_enter_thread(&t->backend);
	if (pb_confine_steady(&t->spec, NULL))
		_exit(1);
	pb_serve(&t->model, worker, t->board);
}

static void fork_worker(struct template *t, uint32_t worker)
{
	struct pb_forked f = {.worker = worker};

	f.pid = pb_fork_sibling();
	if (f.pid == 0)
		become_worker(t, worker);
	close(PB_FD_WORKER_CTL);
	if (f.pid > 0)
		(void)!write(PB_FD_WARDEN_LINK, &f, sizeof(f));
}

/* Later forks have the change. On failure all is as before, and the broker is told why. */
static void change_constants(struct template *t, const struct pb_msg_constants_apply *order, struct pb_fds *fds)
{
	struct pb_msg_constants_done done = {.change_seq = order->change_seq};
	struct pb_constants_change ch = {.map = NULL};
	struct pt2box_error e = {.status = PT2BOX_OK};
	pb_status st = pb_constants_stage(&t->model, (uint32_t)order->change_seq, (enum pb_change)order->change,
					  order->inactive, fds->n ? fds->fd[0] : -1, &ch, &e);

	/* The forks' control sockets must get the lowest free number again. */
	pb_fds_close(fds);
	if (!st)
		st = pb_model_change(&t->model, &ch, &e);
	if (t->backend.trim)
		t->backend.trim();
	done.status = st;
	snprintf(done.text, sizeof(done.text), "%s", st ? e.text : "");
	if (pb_write(PB_FD_TEMPLATE_CTL, PB_MSG_constants_done, &done, NULL))
		_exit(0);
}

static void obey(struct template *t, struct pb_rx *rx)
{
	struct pt2box_error e;

	if (rx->row->id == PB_MSG_constants_apply) {
		change_constants(t, &rx->msg.constants_apply, &rx->fds);
		return;
	}
	if (rx->row->id != PB_MSG_fork || rx->fds.fd[0] != PB_FD_WORKER_CTL) {
		pb_error_set(&e, PT2BOX_MODEL_ERROR, "the model closed descriptors that are not its own");
		give_up(&e);
	}
	fork_worker(t, (uint32_t)rx->msg.fork.worker);
}

_Noreturn void pb_template_run(const struct pb_worker_options *o)
{
	static struct template t;
	static struct pb_rx rx;
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_msg_ready ready;

	if (prepare(&t, o, &e) || load(&t, o, &e))
		give_up(&e);
	tell_phase(PB_PHASE_FORK);
	ready = (struct pb_msg_ready){.n_inputs = t.model.n_inputs,
				      .n_outputs = t.model.n_outputs,
				      .n_constants = t.model.n_constants};
	if (pb_write(PB_FD_TEMPLATE_CTL, PB_MSG_ready, &ready, NULL))
		_exit(0);
	pb_interpose_on_refusal(NULL);
	for (;;) {
		if (pb_recv(PB_FD_TEMPLATE_CTL, PB_BROKER, PB_TEMPLATE, PB_STATE_ANY, false, &rx, NULL))
			_exit(0);
		obey(&t, &rx);
	}
}
