/* SPDX-License-Identifier: Apache-2.0 */
/* Filters into the kernel, and the way of the load filter's listener to the warden. */
#include <errno.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "confine/confine.h"
#include "confine/layers.h"
#include "confine/policy.h"
#include "confine/steps.h"
#include "confine/test_layers.h"

static long install(const struct pb_policy *p, unsigned flags)
{
	struct sock_fprog prog = {.len = p->n_code, .filter = (struct sock_filter *)p->code};

	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}

#ifdef PB_TEST_LAYERS
/* Instead of a policy: all is allowed, and what the warden has to be asked for is asked. */
static const struct pb_policy *no_policy(bool listener)
{
#define ASK(nr, next) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, next)
#define SAY(what) BPF_STMT(BPF_RET | BPF_K, what)
	static const struct sock_filter asking[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ASK(SYS_openat, 1), SAY(SECCOMP_RET_USER_NOTIF), ASK(SYS_clone, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
		ASK(0x1208011, 1), SAY(SECCOMP_RET_USER_NOTIF), SAY(SECCOMP_RET_ALLOW),
	};
	static const struct sock_filter allowing[] = {SAY(SECCOMP_RET_ALLOW)};
	static const struct pb_policy with = {.name = "asks", .code = asking, .n_code = 8},
				      without = {.name = "allows", .code = allowing, .n_code = 1};

	return listener ? &with : &without;
}
#else
#define no_policy(listener) NULL
#endif

/* "filters" are all of them; "run-filter" is what the model runs under from its first instruction on, the load filter stays. */
static bool is_left_out(const char *layer)
{
	bool later = strcmp(layer, "run filter") == 0 || strcmp(layer, "steady filter") == 0;

	return pb_test_layer_off("filters") || (later && pb_test_layer_off("run-filter"));
}

pb_status pb_step_filter(const char *layer, const char *policy, bool all_threads, int *ret_listener,
			 struct pt2box_error *err)
{
	const struct pb_policy *p = is_left_out(layer) ? no_policy(ret_listener != NULL) : pb_policy_find(policy);
	unsigned flags = all_threads ? SECCOMP_FILTER_FLAG_TSYNC : 0;
	long r;

	if (!p)
		return pb_error_set(err, PT2BOX_INTERNAL, "there is no policy %s", policy);
	if (ret_listener)
		/* Killable: a question that was asked is answered once, whatever signals come. */
		flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
	r = install(p, flags);
	if (r < 0)
		return pb_layer_failed(err, layer, "seccomp");
	if (r > 0 && !ret_listener) {
		/* TSYNC: the number of a thread that could not be brought in line. */
		return pb_layer_missing(err, layer, "thread %ld has another filter", r);
	}
	if (ret_listener)
		*ret_listener = (int)r;
	pb_layer_on(layer, "%s: %u calls allowed, %u instructions", policy, p->n_calls, p->n_code);
	return PT2BOX_OK;
}

/* No control data but one descriptor: libpt2box's messages cannot be decoded by a filter that is this narrow. */
union fd_message {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

pb_status pb_filter_send_listener(int sock, int listener, struct pt2box_error *err)
{
	union fd_message control;
	char byte = 'l';
	struct iovec iov = {&byte, 1};
	struct msghdr h = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.buf,
			   .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c;

	memset(&control, 0, sizeof(control));
	c = CMSG_FIRSTHDR(&h);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &listener, sizeof(int));
	while (sendmsg(sock, &h, MSG_NOSIGNAL) != 1)
		if (errno != EINTR)
			return pb_error_sys(err, "the warden did not take the listener");
	return PT2BOX_OK;
}

int pb_confine_receive_listener(int sock)
{
	union fd_message control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr h = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.buf,
			   .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c;
	int fd = -1;
	ssize_t n;

	do
		n = recvmsg(sock, &h, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	c = n == 1 ? CMSG_FIRSTHDR(&h) : NULL;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(c), sizeof(int));
	return fd;
}
