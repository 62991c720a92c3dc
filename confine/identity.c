/* SPDX-License-Identifier: Apache-2.0 */
/* Who a process is and what rights it has: ids, groups, capabilities. */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "confine/confine.h"
#include "confine/layers.h"
#include "confine/steps.h"
#include "confine/test_layers.h"

#define SECUREBITS                                                                                                     \
	(SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |               \
	 SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

struct caps {
	struct __user_cap_data_struct set[2];
};

static bool get_caps(struct caps *c)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};

	return syscall(SYS_capget, &h, c->set) == 0;
}

static bool set_caps(const struct caps *c)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};

	return syscall(SYS_capset, &h, c->set) == 0;
}

static bool has_cap(const struct caps *c, unsigned cap)
{
	return c->set[cap / 32].effective & (1u << (cap % 32));
}

bool pb_confine_has_rights(void)
{
	static const unsigned needed[] = {CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_KILL};
	unsigned long inside, outside, n;
	struct caps c;
	FILE *f;
	bool all;

	if (geteuid() != 0 || !get_caps(&c))
		return false;
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (!has_cap(&c, needed[i]))
			return false;
	/* Root of a container with few uids cannot give them out. */
	f = fopen("/proc/self/uid_map", "re");
	all = f && fscanf(f, "%lu %lu %lu", &inside, &outside, &n) == 3 && inside == 0 && n >= 0x7fffffffu;
	if (f)
		fclose(f);
	return all;
}

static bool drop_bounding(bool (*keep)(unsigned cap))
{
	for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (!(keep && keep(cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
			return false;
	return true;
}

static bool change_ids(uint32_t uid, uint32_t gid)
{
	if (gid && setresgid(gid, gid, gid) != 0)
		return false;
	return !uid || setresuid(uid, uid, uid) == 0;
}

/* What was asked for is what there is, and there is no way back. */
static bool is_powerless(uint32_t uid, uint32_t gid)
{
	uid_t u[3];
	gid_t g[3];
	struct caps c;

	if (!get_caps(&c) || getresuid(&u[0], &u[1], &u[2]) != 0 || getresgid(&g[0], &g[1], &g[2]) != 0)
		return false;
	for (int i = 0; i < 2; i++)
		if (c.set[i].effective | c.set[i].permitted | c.set[i].inheritable)
			return false;
	for (int i = 0; i < 3; i++)
		if ((uid && u[i] != uid) || (gid && g[i] != gid))
			return false;
	for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 0)
			return false;
	return !uid || (setresuid(-1, 0, -1) != 0 && getgroups(0, NULL) == 0);
}

#ifdef PB_TEST_LAYERS
/* Other ids, and every right all the same. */
static bool keep_all(uint32_t uid, uint32_t gid)
{
	struct caps c;

	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 || setgroups(0, NULL) != 0 || !change_ids(uid, gid) || !get_caps(&c))
		return false;
	for (int i = 0; i < 2; i++)
		c.set[i].effective = c.set[i].permitted;
	return set_caps(&c);
}
#else
#define keep_all(uid, gid) true
#endif

pb_status pb_step_identity(uint32_t uid, uint32_t gid, struct pt2box_error *err)
{
	static const char ids[] = "own ids", caps[] = "no capabilities";
	const struct caps none = {0};

	if (pb_test_layer_off("ids"))
		uid = gid = 0;
	if (pb_test_layer_off("capabilities"))
		return keep_all(uid, gid) ? PT2BOX_OK : pb_layer_failed(err, ids, "keeping capabilities");
	if (prctl(PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0) != 0)
		return pb_layer_failed(err, caps, "securebits");
	if (!drop_bounding(NULL))
		return pb_layer_failed(err, caps, "bounding set");
	/* In a user namespace of an ordinary user the groups cannot be dropped; nothing is there to use them on. */
	if (setgroups(0, NULL) != 0 && uid)
		return pb_layer_failed(err, ids, "setgroups");
	if (!change_ids(uid, gid))
		return pb_layer_failed(err, ids, "setresuid");
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (!set_caps(&none))
		return pb_layer_failed(err, caps, "capset");
	if (!is_powerless(uid, gid))
		return pb_layer_missing(err, caps, "rights are left after they were dropped");
	if (uid)
		pb_layer_on(ids, "uid %u, no groups", uid);
	else
		pb_layer_off(ids, "the user's own uid, alone in a user namespace");
	pb_layer_on(caps, "none, bounding set empty, securebits locked");
	return PT2BOX_OK;
}

pb_status pb_step_no_rights(uint32_t uid, struct pt2box_error *err)
{
	const struct caps none = {0};

	if (pb_confine_has_rights())
		return pb_step_identity(uid, uid, err);
	/* Root of a container that may not change ids keeps its own, without what makes it root; others have nothing. */
	if (!set_caps(&none))
		return pb_layer_failed(err, "no capabilities", "capset");
	return PT2BOX_OK;
}

static bool spawner_needs(unsigned cap)
{
	switch (cap) {
	case CAP_CHOWN:
	case CAP_DAC_OVERRIDE: /* control groups, the socket's name */
	case CAP_KILL:
	case CAP_SETGID:
	case CAP_SETUID:
	case CAP_SETPCAP:
	case CAP_SYS_ADMIN: /* namespaces, mounts */
	case CAP_SYS_RESOURCE:
		return true;
	default:
		return false;
	}
}

void pb_step_spawner_capabilities(void)
{
	struct caps c;

	if (!drop_bounding(spawner_needs) || !get_caps(&c)) {
		pb_layer_off("few capabilities in the spawner", "%s", strerror(errno));
		return;
	}
	for (unsigned cap = 0; cap < 64; cap++)
		if (!spawner_needs(cap)) {
			c.set[cap / 32].effective &= ~(1u << (cap % 32));
			c.set[cap / 32].permitted &= ~(1u << (cap % 32));
			c.set[cap / 32].inheritable &= ~(1u << (cap % 32));
		}
	if (!set_caps(&c))
		pb_layer_off("few capabilities in the spawner", "%s", strerror(errno));
	else
		pb_layer_on("few capabilities in the spawner", "eight");
}
