/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of an ops process, in a process of its own, with a worker that writes its lane by hand: only the calls that are
 * the package's can be made, and what makes no sense is answered, whatever came before.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/fdmap.h"
#include "ipc/ops_call.h"
#include "ipc/socket.h"
#include "proxy/serve.h"
#include "tests/lib/check.h"

#define LANE 7u
#define BYTES 65536u
#define NODES 3u /* one of them is the package's */
#define ALLOWED 1u

static const struct pb_lane_geometry geo = {
	.slots = 1, .slot_bytes = PB_OPS_SLOT_BYTES, .up_bytes = BYTES, .down_bytes = BYTES};

/* ---- the package: one call, of an operator that negates ---- */

static int negate(struct pt2box_op_call *c)
{
	const struct pt2box_op_tensor *x = c->args[0].v.tensor;
	struct pt2box_op_tensor *y = c->new_tensor(c, x->dtype, x->ndim, x->sizes, NULL);

	if (!y)
		return 1;
	for (int64_t i = 0; i < x->sizes[0]; i++)
		((float *)y->data)[i] = -((const float *)x->data)[i];
	return c->set_result(c, 0, y);
}

static const struct pt2box_op ops[] = {{"test::negate", "(Tensor x) -> Tensor", negate}};
static const struct pt2box_op_plugin plugin = {PT2BOX_OP_ABI, sizeof(struct pt2box_op), "test", ops, 1};

static struct pb_host_node *prepare(struct pb_ops_window *window)
{
	static struct pb_node_arg arg = {.name = "x", .kind = PT2BOX_OP_TENSOR};
	static struct pb_node_arg out = {.name = "", .kind = PT2BOX_OP_TENSOR};
	static struct pb_node node = {.target = "test::negate", .args = &arg, .n_args = 1, .outs = &out, .n_outs = 1};
	const struct pb_host_options opt = {.memory = {pb_ops_window_alloc, pb_ops_window_free, window},
					    .max_result_bytes = BYTES,
					    .max_tensors = 4};
	struct pb_host_node *ret;
	struct pb_host *h;

	if (pb_node_layout(&node, NULL) || pb_host_new(&opt, &h, NULL) || pb_host_add(h, &plugin, NULL) || pb_host_prepare(h, &node, &ret, NULL))
		_exit(9);
	return ret;
}

/* ---- both ends ---- */

struct world {
	int ctl, up, down;
	struct pb_board *board;
	struct pb_lane lane; /* the worker's end */
	struct pb_lane_decoder *decoder;
	uint32_t seq;
	pid_t pid;
};

static _Noreturn void be_ops(int ctl, const struct pb_board *board)
{
	static struct pb_host_node *nodes[NODES];
	static struct pb_ops_window window;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(ctl, PB_FD_OPS_CTL) < 0)
		_exit(8);
	nodes[ALLOWED] = prepare(&window);
	pb_ops_serve(nodes, NODES, 2, &window, board);
}

static void begin(struct world *w)
{
	const struct pb_msg_ops_attach a = {.lane = LANE,
					    .slots = geo.slots,
					    .slot_bytes = geo.slot_bytes,
					    .up_bytes = geo.up_bytes,
					    .down_bytes = geo.down_bytes};
	uint64_t up, down, control;
	int pair[2];

	*w = (struct world){.decoder = pb_lane_decoder_new(4)};
	w->board = mmap(NULL, PB_BOARD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(MAP_FAILED, w->board);
	assert_int_equal(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	assert_int_equal(PT2BOX_OK, pb_lane_sizes(&geo, &up, &down, &control));
	assert_int_equal(PT2BOX_OK, pb_memfd("up", up, &w->up, NULL));
	assert_int_equal(PT2BOX_OK, pb_memfd("down", down, &w->down, NULL));
	assert_int_equal(PT2BOX_OK, pb_lane_map(&w->lane, PB_LANE_CLIENT, &geo, w->up, w->down, NULL));
	w->pid = fork();
	assert_true(w->pid >= 0);
	if (w->pid == 0)
		be_ops(pair[1], w->board);
	close(pair[1]);
	w->ctl = pair[0];
	assert_int_equal(PT2BOX_OK, pb_send(w->ctl, PB_MSG_ops_attach, &a, (int[]){w->up, w->down}, 2, NULL));
	atomic_fetch_add(&w->board->bell, 1);
	pb_futex_wake(&w->board->bell, 1);
}

static void end(struct world *w)
{
	int status;

	/* The socket's end is the broker's: it leaves by itself. */
	close(w->ctl);
	atomic_fetch_add(&w->board->bell, 1);
	pb_futex_wake(&w->board->bell, 1);
	assert_int_equal(w->pid, waitpid(w->pid, &status, 0));
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	pb_lane_decoder_free(w->decoder);
	pb_lane_unmap(&w->lane);
	close(w->up);
	close(w->down);
	munmap(w->board, PB_BOARD_BYTES);
}

static const struct pb_lane_reply *ask(struct world *w, const uint8_t *buf, uint32_t len)
{
	static uint8_t reply[PB_OPS_SLOT_BYTES];
	struct pb_lane_pace pace = {0};
	const struct pb_lane_reply *ret;

	pb_lane_submit(&w->lane, 0, ++w->seq, buf, len);
	assert_true(pb_lane_wait(&w->lane, 0, w->seq, &pace, pb_now_ns() + 60000000000u));
	len = pb_lane_take_reply(&w->lane, 0, reply, sizeof(reply));
	assert_int_not_equal(0, len);
	assert_int_equal(PT2BOX_OK, pb_lane_decode_reply(w->decoder, reply, len, &ret));
	return ret;
}

static const struct pb_lane_reply *call(struct world *w, uint32_t node, uint32_t n_inputs, uint64_t offset)
{
	struct pb_lane_tensor in[4];
	struct pb_lane_request q = {.n_inputs = n_inputs, .inputs = in};
	struct pb_ops_call c = {.node = node, .request = &q};
	static uint8_t buf[PB_OPS_SLOT_BYTES];
	uint32_t len;

	for (uint32_t i = 0; i < 4; i++)
		in[i] = (struct pb_lane_tensor){
			.dtype = PT2BOX_FLOAT32, .ndim = 1, .offset = offset, .sizes = {3}, .strides = {1}};
	len = pb_ops_encode_call(&c, buf, sizeof(buf));
	assert_int_not_equal(0, len);
	return ask(w, buf, len);
}

static void right_call(struct world *w)
{
	static const float x[] = {1, -2, 3};
	const struct pb_lane_reply *r;
	const float *y;
	uint64_t bytes;

	memcpy(w->lane.up_seg[0].base, x, sizeof(x));
	r = call(w, ALLOWED, 1, 0);
	assert_int_equal(PT2BOX_OK, r->status);
	assert_int_equal(1, r->n_outputs);
	y = (const float *)(const void *)pb_lane_tensor_data(&w->lane, &r->outputs[0], &bytes);
	assert_non_null(y);
	assert_int_equal(sizeof(x), bytes);
	for (int i = 0; i < 3; i++)
		assert_true(y[i] == -x[i]);
}

/* ---- tests ---- */

static void test_denied(void **state)
{
	static const uint32_t others[] = {0, 2, NODES, NODES + 1, PB_NODES_MAX};
	struct world w;

	(void)state;
	begin(&w);
	right_call(&w);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		assert_int_equal(PT2BOX_OP_DENIED, call(&w, others[i], 1, 0)->status);
	right_call(&w);
	end(&w);
}

static void test_nonsense(void **state)
{
	static const uint8_t bomb[] = {ALLOWED, 0xdd, 0xff, 0xff, 0xff, 0xff};
	struct world w;

	(void)state;
	begin(&w);
	assert_int_equal(PT2BOX_PROTOCOL, ask(&w, bomb, sizeof(bomb))->status);
	assert_int_not_equal(PT2BOX_OK, call(&w, ALLOWED, 0, 0)->status);
	assert_int_not_equal(PT2BOX_OK, call(&w, ALLOWED, 2, 0)->status);
	assert_int_equal(PT2BOX_PROTOCOL, call(&w, ALLOWED, 4, 0)->status); /* more than any call takes */
	assert_int_equal(PT2BOX_BAD_TENSOR, call(&w, ALLOWED, 1, BYTES - 8)->status);
	assert_int_equal(PT2BOX_BAD_TENSOR, call(&w, ALLOWED, 1, UINT64_MAX / 2)->status);
	right_call(&w);
	end(&w);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CHECK_TEST(test_denied),
		CHECK_TEST(test_nonsense),
	};

	return cmocka_run_group_tests_name("serve", tests, NULL, NULL);
}
