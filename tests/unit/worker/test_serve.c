/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A serving worker, with this process as its broker and client: changes of constants come into force between the right
 * runs, whatever order words and requests come in; lost state, retirement, values read back.
 */
#include "tests/unit/worker/host.inc"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include "ipc/lane.h"
#include "worker/interpose.h"
#include "worker/serve.h"

#define WORKER 3
#define SLOTS 4
#define SLOT_BYTES 4096
#define SEGMENT_BYTES 65536
#define LANE 7
#define QUIET_MS 60 /* that long nothing happens: long enough for a worker that does it at once */
#define WINDOW_BYTES 4096
#define TOO_SMALL 64

/* The worker's own replace malloc and open, which this program keeps. */
bool pb_interpose_refused(void)
{
	return false;
}

void pb_interpose_clear_refused(void)
{
}

void pb_interpose_on_refusal(void (*f)(void))
{
	(void)f;
}

struct serving {
	struct host *h;
	struct pb_board *board;
	int ctl, up, down;
	pid_t pid;
	struct pb_lane lane;
	struct pb_lane_geometry geo;
	struct pb_lane_decoder *decoder;
	struct pb_rx rx;
	struct test_arrays in;
	uint32_t seq[SLOTS];
	uint8_t buf[SLOT_BYTES];
	int original, full;
};

/* ---- the broker's part ---- */

static void *expect_message(struct serving *s, enum pb_msg_id id)
{
	EXPECT_OK(pb_recv(s->ctl, PB_WORKER, PB_BROKER, PB_STATE_ANY, false, &s->rx, &e_));
	EXPECT(s->rx.row->id == id, "%s", s->rx.row->name);
	return &s->rx.msg;
}

static void expect_silence(struct serving *s)
{
	struct pollfd p = {.fd = s->ctl, .events = POLLIN};

	EXPECT(poll(&p, 1, QUIET_MS) == 0);
}

static void ring(struct serving *s)
{
	atomic_fetch_add(&s->board->bell, 1);
	pb_futex_wake(&s->board->bell, 64);
}

static void order(struct serving *s, enum pb_msg_id id, const void *msg, int fd)
{
	EXPECT_OK(pb_send(s->ctl, id, msg, &fd, fd >= 0, &e_));
	ring(s);
}

static void stage(struct serving *s, uint32_t seq, enum pb_change change, bool inactive, int memory)
{
	struct pb_msg_constants_stage m = {.change_seq = seq, .change = change, .inactive = inactive};
	struct pb_msg_constants_staged *staged;

	order(s, PB_MSG_constants_stage, &m, memory);
	staged = expect_message(s, PB_MSG_constants_staged);
	EXPECT(staged->change_seq == seq);
}

static void commit(struct serving *s, uint32_t seq)
{
	atomic_store(&s->board->committed, seq);
}

static void expect_applied(struct serving *s, uint32_t seq, pb_status status)
{
	struct pb_msg_constants_applied *m = expect_message(s, PB_MSG_constants_applied);

	EXPECT(m->change_seq == seq && m->status == status, "%llu: %s", (unsigned long long)m->change_seq,
	       pt2box_status_name(m->status));
}

static void make_lane(struct serving *s)
{
	uint64_t up, down, control;

	s->geo = (struct pb_lane_geometry){SLOTS, SLOT_BYTES, SEGMENT_BYTES, SEGMENT_BYTES};
	EXPECT_OK(pb_lane_sizes(&s->geo, &up, &down, &control));
	EXPECT_OK(pb_memfd("up", up, &s->up, &e_));
	EXPECT_OK(pb_memfd("down", down, &s->down, &e_));
	EXPECT_OK(pb_lane_map(&s->lane, PB_LANE_CLIENT, &s->geo, s->up, s->down, &e_));
	s->decoder = pb_lane_decoder_new(8);
}

static void attach(struct serving *s)
{
	struct pb_msg_attach m = {.lane = LANE, .slots = SLOTS, .slot_bytes = SLOT_BYTES, .up_bytes = SEGMENT_BYTES,
				  .down_bytes = SEGMENT_BYTES};
	int fds[] = {s->up, s->down};

	EXPECT_OK(pb_send(s->ctl, PB_MSG_attach, &m, fds, 2, &e_));
	ring(s);
}

/* A worker forked from a template whose last change was @change_seq. */
static struct serving *begin(const char *fixture, uint32_t change_seq)
{
	struct serving *s = calloc(1, sizeof(*s));
	int p[2];

	alarm(60);
	s->h = host_load(fixture, -1);
	s->original = host_extract(s->h, false);
	s->full = host_memory(s->h, s->original, "full.safetensors");
	s->h->model.constants.change_seq = change_seq;
	s->board = mmap(NULL, PB_BOARD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	EXPECT(s->board != MAP_FAILED);
	make_lane(s);
	read_arrays(s->h, "in.npz", &s->in);
	EXPECT_OK(pb_socket_pair(p, &e_));
	s->ctl = fcntl(p[0], F_DUPFD, 60);
	s->pid = fork();
	if (s->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		EXPECT(dup2(p[1], PB_FD_WORKER_CTL) == PB_FD_WORKER_CTL);
		close(s->ctl);
		if (p[0] != PB_FD_WORKER_CTL)
			close(p[0]);
		pb_serve(&s->h->model, WORKER, s->board);
	}
	close(p[0]);
	close(p[1]);
	expect_message(s, PB_MSG_worker_ready);
	attach(s);
	return s;
}

static int ended(struct serving *s, int flags)
{
	int status;
	pid_t pid = waitpid(s->pid, &status, flags);

	EXPECT(pid == s->pid || (pid == 0 && flags == WNOHANG));
	return pid ? status : -1;
}

static void end(struct serving *s)
{
	close(s->ctl);
	ring(s);
	EXPECT(ended(s, 0) == 0);
}

/* ---- the client's part ---- */

static uint32_t submit(struct serving *s, uint32_t slot, uint64_t window, uint32_t fetch)
{
	const struct pb_array_view *v = &s->in.v[0];
	struct pb_lane_tensor t = {.dtype = v->dtype, .ndim = v->ndim};
	struct pb_lane_request q = {.window_bytes = window, .window_offset = slot * WINDOW_BYTES, .fetch = fetch,
				    .n_inputs = 1, .inputs = &t};
	uint32_t n;

	memcpy(t.sizes, v->sizes, (size_t)v->ndim * sizeof(*v->sizes));
	memcpy(t.strides, v->strides, (size_t)v->ndim * sizeof(*v->strides));
	memcpy(s->lane.up_seg[0].base, s->in.data[0], s->in.file->item[0].bytes);
	n = pb_lane_encode_request(&q, s->buf, sizeof(s->buf));
	EXPECT(n > 0);
	pb_lane_submit(&s->lane, slot, ++s->seq[slot], s->buf, n);
	return s->seq[slot];
}

static const struct pb_lane_reply *reply(struct serving *s, uint32_t slot)
{
	struct pb_lane_pace pace = {0};
	const struct pb_lane_reply *r;

	EXPECT(pb_lane_wait(&s->lane, slot, s->seq[slot], &pace, UINT64_MAX));
	EXPECT_OK(pb_lane_decode_reply(s->decoder, s->buf, pb_lane_take_reply(&s->lane, slot, s->buf, sizeof(s->buf)), &r));
	EXPECT(r->worker == WORKER);
	return r;
}

static void expect_output(struct serving *s, uint32_t slot, const char *file)
{
	const struct pb_lane_reply *r = reply(s, slot);
	const struct pb_lane_tensor *t = r->outputs;
	struct pb_array_view got;
	struct test_arrays want;
	char why[256];
	uint64_t bytes;

	EXPECT(r->status == PT2BOX_OK, "%s: %s", pt2box_status_name(r->status), r->text);
	got = (struct pb_array_view){"", t->dtype, t->ndim, t->sizes, t->strides, pb_lane_tensor_data(&s->lane, t, &bytes)};
	read_arrays(s->h, file, &want);
	EXPECT(got.data && test_close(&got, &want.v[0], s->h->about.rtol, s->h->about.atol, why), "%s: %s", file, why);
	test_arrays_free(&want);
}

static void run_gives(struct serving *s, const char *file)
{
	submit(s, 0, WINDOW_BYTES, 0);
	expect_output(s, 0, file);
}

static void expect_status(struct serving *s, uint32_t slot, pb_status status)
{
	const struct pb_lane_reply *r = reply(s, slot);

	EXPECT(r->status == status, "%s: %s", pt2box_status_name(r->status), r->text);
}

static void expect_no_claim(struct serving *s, uint32_t slot)
{
	struct timespec t = {.tv_nsec = QUIET_MS * 1000000};
	struct pb_lane_peek peek;

	nanosleep(&t, NULL);
	pb_lane_look(&s->lane, slot, &peek);
	EXPECT(peek.pending && !peek.claimed);
}

/* ---- scenarios ---- */

static void change_comes_into_force(const char *fixture)
{
	struct serving *s = begin(fixture, 0);

	run_gives(s, "out.npz");
	stage(s, 1, PB_CHANGE_UPDATE, false, s->full);
	run_gives(s, "out.npz");
	expect_silence(s);

	/* Nobody rings: what is claimed after the commit is run with the change all the same. */
	commit(s, 1);
	run_gives(s, "out_full.npz");
	expect_applied(s, 1, PT2BOX_OK);

	/* Nobody runs: what was given up is unmapped all the same. */
	stage(s, 2, PB_CHANGE_UPDATE, false, s->original);
	commit(s, 2);
	ring(s);
	expect_applied(s, 2, PT2BOX_OK);
	run_gives(s, "out.npz");

	stage(s, 3, PB_CHANGE_UPDATE, true, s->full);
	commit(s, 3);
	run_gives(s, "out.npz");
	expect_applied(s, 3, PT2BOX_OK);
	stage(s, 4, PB_CHANGE_FOLD, true, -1);
	commit(s, 4);
	ring(s);
	expect_applied(s, 4, PT2BOX_OK);
	/* Numbers may be missing: of changes that the template could not make. */
	stage(s, 9, PB_CHANGE_SWAP, false, -1);
	run_gives(s, "out.npz");
	commit(s, 9);
	run_gives(s, "out_full.npz");
	expect_applied(s, 9, PT2BOX_OK);
	stage(s, 10, PB_CHANGE_FREE_INACTIVE, false, -1);
	commit(s, 10);
	ring(s);
	expect_applied(s, 10, PT2BOX_OK);
	run_gives(s, "out_full.npz");
	expect_silence(s);
	end(s);
}

static void test_change_comes_into_force(void **state)
{
	(void)state;
	host_child(change_comes_into_force, "mlp");
	host_child(change_comes_into_force, "extfold");
	host_child(change_comes_into_force, "blobconst");
}

/* One that was given up with its template's number is followed by another one. */
static void staged_again(const char *fixture)
{
	struct serving *s = begin(fixture, 5);

	commit(s, 5);
	ring(s);
	stage(s, 6, PB_CHANGE_UPDATE, false, s->full);
	stage(s, 7, PB_CHANGE_UPDATE, false, s->original);
	commit(s, 7);
	run_gives(s, "out.npz");
	expect_applied(s, 7, PT2BOX_OK);
	expect_silence(s);
	end(s);
}

static void test_staged_again(void **state)
{
	(void)state;
	host_child(staged_again, "mlp");
}

/* Forked after the template made a change, before it is in force. */
static void ahead(const char *fixture)
{
	struct serving *s = begin(fixture, 3);

	commit(s, 2);
	submit(s, 0, WINDOW_BYTES, 0);
	expect_no_claim(s, 0);
	ring(s);
	expect_no_claim(s, 0);
	commit(s, 3);
	ring(s);
	expect_output(s, 0, "out.npz");
	end(s);
}

/* Numbers wrap. */
static void ahead_at_the_end(const char *fixture)
{
	struct serving *s = begin(fixture, 0);

	commit(s, UINT32_MAX);
	submit(s, 0, WINDOW_BYTES, 0);
	expect_no_claim(s, 0);
	commit(s, 0);
	ring(s);
	expect_output(s, 0, "out.npz");
	end(s);
}

static void test_worker_that_is_ahead(void **state)
{
	(void)state;
	host_child(ahead, "mlp");
	host_child(ahead_at_the_end, "mlp");
}

/* Its constants would be others than those of its fellows. */
static void must_serve_no_more(struct serving *s)
{
	submit(s, 1, WINDOW_BYTES, 0);
	expect_no_claim(s, 1);
	ring(s);
	expect_no_claim(s, 1);
	end(s);
}

static void cannot_apply(const char *fixture)
{
	struct serving *s = begin(fixture, 0);

	stage(s, 1, PB_CHANGE_SWAP, false, -1); /* of an empty buffer */
	run_gives(s, "out.npz");
	commit(s, 1);
	ring(s);
	expect_applied(s, 1, PT2BOX_USAGE);
	must_serve_no_more(s);
}

static void cannot_stage(const char *fixture)
{
	struct serving *s = begin(fixture, 0);

	stage(s, 1, PB_CHANGE_UPDATE, false, -1); /* without memory */
	run_gives(s, "out.npz");
	commit(s, 1);
	ring(s);
	expect_applied(s, 1, PT2BOX_UNSUPPORTED);
	must_serve_no_more(s);
}

static void test_change_that_cannot_be_made(void **state)
{
	(void)state;
	host_child(cannot_apply, "mlp");
	host_child(cannot_stage, "mlp");
}

/* Outputs that a client has yet to fetch may lie in the old constants. */
static void kept_outputs(const char *fixture)
{
	struct serving *s = begin(fixture, 0);
	uint32_t first = submit(s, 0, TOO_SMALL, 0);

	expect_status(s, 0, PT2BOX_WINDOW);
	stage(s, 1, PB_CHANGE_UPDATE, false, s->full);
	commit(s, 1);
	ring(s);
	expect_silence(s);
	submit(s, 0, WINDOW_BYTES, first);
	expect_output(s, 0, "out.npz");
	expect_applied(s, 1, PT2BOX_OK);
	run_gives(s, "out_full.npz");

	/* A run lets go of them. */
	first = submit(s, 0, TOO_SMALL, 0);
	expect_status(s, 0, PT2BOX_WINDOW);
	stage(s, 2, PB_CHANGE_UPDATE, false, s->original);
	commit(s, 2);
	submit(s, 1, WINDOW_BYTES, 0);
	expect_output(s, 1, "out.npz");
	expect_applied(s, 2, PT2BOX_OK);
	submit(s, 0, WINDOW_BYTES, first);
	expect_status(s, 0, PT2BOX_NOT_FOUND);
	end(s);
}

static void test_kept_outputs(void **state)
{
	(void)state;
	host_child(kept_outputs, "mlp");
}

static void state_lost(const char *fixture)
{
	struct pb_msg_state_lost m = {.text = "the state is gone"};
	struct serving *s = begin(fixture, 0);

	order(s, PB_MSG_state_lost, &m, -1);
	submit(s, 0, WINDOW_BYTES, 0);
	EXPECT(reply(s, 0)->status == PT2BOX_STATE_LOST && strcmp(reply(s, 0)->text, m.text) == 0);
	run_gives(s, "out.npz"); /* the first one, as far as the model knows */
	end(s);
}

static void test_state_lost(void **state)
{
	(void)state;
	host_child(state_lost, "mutbuf");
}

static void retire(const char *fixture)
{
	struct pb_msg_retire m = {};
	struct serving *s = begin(fixture, 0);

	run_gives(s, "out.npz");
	order(s, PB_MSG_retire, &m, -1);
	EXPECT(ended(s, 0) == 0);
	submit(s, 0, WINDOW_BYTES, 0);
	expect_no_claim(s, 0);
}

static void retire_with_outputs(const char *fixture)
{
	struct pb_msg_retire m = {};
	struct serving *s = begin(fixture, 0);
	uint32_t first = submit(s, 0, TOO_SMALL, 0);

	expect_status(s, 0, PT2BOX_WINDOW);
	order(s, PB_MSG_retire, &m, -1);
	expect_silence(s);
	EXPECT(ended(s, WNOHANG) == -1);
	submit(s, 0, WINDOW_BYTES, first);
	expect_output(s, 0, "out.npz");
	EXPECT(ended(s, 0) == 0);
}

static void test_retire(void **state)
{
	(void)state;
	host_child(retire, "mlp");
	host_child(retire_with_outputs, "mlp");
}

static void extract(const char *fixture)
{
	struct serving *s = begin(fixture, 0);
	struct pb_msg_constants_extract m = {.id = 4};
	struct pb_msg_constants_extracted *done;
	int memory = memfd_create("values", MFD_ALLOW_SEALING);
	size_t n = memory_bytes(s->h);
	uint8_t *got = malloc(n), *want = malloc(n);

	EXPECT(ftruncate(memory, (off_t)n) == 0);
	order(s, PB_MSG_constants_extract, &m, memory);
	done = expect_message(s, PB_MSG_constants_extracted);
	EXPECT(done->id == 4 && done->status == PT2BOX_OK);
	EXPECT(pread(memory, got, n, 0) == (ssize_t)n && pread(s->original, want, n, 0) == (ssize_t)n);
	EXPECT(memcmp(got, want, n) == 0);
	/* Nothing holds it any more. */
	EXPECT(fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE) == 0);
	m.inactive = 1;
	m.id = 5;
	order(s, PB_MSG_constants_extract, &m, memory);
	done = expect_message(s, PB_MSG_constants_extracted);
	EXPECT(done->id == 5 && done->status == PT2BOX_OK);
	end(s);
}

static void test_extract(void **state)
{
	(void)state;
	host_child(extract, "mlp");
	host_child(extract, "mutbuf");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_change_comes_into_force),
		CHECK_TEST(test_staged_again),
		CHECK_TEST(test_worker_that_is_ahead),
		CHECK_TEST(test_change_that_cannot_be_made),
		CHECK_TEST(test_kept_outputs),
		CHECK_TEST(test_state_lost),
		CHECK_TEST(test_retire),
		CHECK_TEST(test_extract),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
