/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box-ops: runs the operators that a package calls by name, from a file that the client brought: a plugin, or, with --torch, a
 * library that registers operators with PyTorch. Started by the spawner as pid 1 of a new namespace, with numbered
 * descriptors and an empty environment.
 *
 *	take fds -> copy the plugin -> with --torch: load PyTorch's library, warm it up -> sandbox on -> gate -> link, no
 *	constructor runs -> run filter -> constructors -> join operators to the package's calls -> serve
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <getopt.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "confine/confine.h"
#include "confine/elf_gate.h"
#include "ipc/fdmap.h"
#include "ipc/manifest.h"
#include "ipc/socket.h"
#include "proxy/dispatcher.h"
#include "proxy/process.h"
#include "proxy/wants.h"

#define PLUGIN_BYTES_MAX (256ull << 20)
#define STR2(x) #x
#define STR(x) STR2(x)
#define COPY_NUMBER 7 /* as text in the name that the linker is given */
_Static_assert(COPY_NUMBER == PB_FD_OPS_COPY, "the name of the copy");

struct options {
	struct pb_confine_spec confine;
	uint64_t result_bytes;
	const char *torch; /* path of PyTorch's library; NULL: the file is a plugin */
	bool some;	   /* calls that nobody here has are no reason to give up */
};

struct ops {
	uint64_t init_addr, init_array_addr; /* the plugin's constructors, relative to where it lies; 0: none */
	uint32_t init_array_count;
	void *lib;
	struct pb_ops_process process;
};

static bool parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {{"uid", required_argument, NULL, 'u'},
					      {"gid", required_argument, NULL, 'g'},
					      {"memory", required_argument, NULL, 'm'},
					      {"result-bytes", required_argument, NULL, 'r'},
					      {"torch", required_argument, NULL, 't'},
					      {"some", required_argument, NULL, 's'},
					      {NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 'u')
			o->confine.uid = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'g')
			o->confine.gid = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'm')
			o->confine.memory_bytes = strtoull(optarg, NULL, 10);
		else if (c == 'r')
			o->result_bytes = strtoull(optarg, NULL, 10);
		else if (c == 't')
			o->torch = optarg;
		else if (c == 's')
			o->some = optarg[0] == '1';
		else
			return false;
	}
	o->confine.torch = o->torch != NULL;
	return o->result_bytes != 0;
}

/* The client may change its file at any time: what is checked is a copy. Bytes are moved, nothing is made of them. */
static pb_status copy_plugin(struct pt2box_error *err)
{
	static uint8_t buf[1u << 16];
	uint64_t at = 0;
	int fd = -1;
	pb_status st = pb_memfd_unsealed("pt2box-plugin", &fd, err);

	while (!st) {
		ssize_t n = pread(PB_FD_OPS_PLUGIN, buf, sizeof(buf), (off_t)at);

		if (n == 0)
			break;
		if (n < 0 || write(fd, buf, (size_t)n) != n)
			st = pb_error_sys(err, "the plugin cannot be read");
		at += n < 0 ? 0 : (uint64_t)n;
		if (at > PLUGIN_BYTES_MAX)
			st = pb_error_set(err, PT2BOX_LIMIT, "a plugin may have %llu bytes", PLUGIN_BYTES_MAX);
	}
	close(PB_FD_OPS_PLUGIN);
	if (!st && !pb_fd_move(fd, PB_FD_OPS_COPY))
		st = pb_error_sys(err, "the plugin's copy");
	return st;
}

static pb_status open_names(struct pt2box_error *err)
{
	int fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || !pb_fd_move(fd, PB_FD_OPS_NAMES))
		return pb_error_sys(err, "/proc/self/fd");
	return PT2BOX_OK;
}

/* Takes the constructors out of the copy, so that linking runs no code of it. */
static pb_status gate(struct ops *o, bool torch, const char **ret_wants, struct pt2box_error *err)
{
	struct pb_elf_facts facts = PB_ELF_FACTS_INIT;
	struct stat sb;
	uint8_t *file;
	pb_status st;

	if (fstat(PB_FD_OPS_COPY, &sb) != 0 || sb.st_size == 0)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the plugin is empty");
	file = mmap(NULL, (size_t)sb.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, PB_FD_OPS_COPY, 0);
	if (file == MAP_FAILED)
		return pb_error_sys(err, "the plugin cannot be mapped");
	*ret_wants = torch ? "" : pb_ops_wants(file, (uint64_t)sb.st_size);
	st = **ret_wants ? pb_error_set(err, PT2BOX_UNSUPPORTED, "not a plugin: the host \"%s\" may run it", *ret_wants) :
			   pb_elf_gate(file, (uint64_t)sb.st_size, torch ? PB_ELF_EXTENSION : PB_ELF_PACKAGED, &facts, err);
	if (!st) {
		/* What is linked is what was checked: as for a model, the result is looked at once more. */
		struct pb_elf_facts after = PB_ELF_FACTS_INIT;

		pb_elf_patch(file, (uint64_t)sb.st_size);
		st = pb_elf_gate(file, (uint64_t)sb.st_size, PB_ELF_PATCHED, &after, err);
		pb_elf_facts_deinit(&after);
	}
	o->init_addr = facts.init_addr;
	o->init_array_addr = facts.init_array_addr;
	o->init_array_count = facts.init_array_count;
	pb_elf_facts_deinit(&facts);
	munmap(file, (size_t)sb.st_size);
	return st;
}

/* By the name that its descriptor has: the linker opens names only, and there are no others any more. */
static pb_status link_plugin(struct ops *o, struct pt2box_error *err)
{
	if (fchdir(PB_FD_OPS_NAMES) != 0)
		return pb_error_sys(err, "names of descriptors");
	o->lib = dlopen("./" STR(COPY_NUMBER), RTLD_NOW | RTLD_LOCAL);
	if (chdir("/") != 0)
		return pb_error_sys(err, "/");
	close(PB_FD_OPS_NAMES);
	close(PB_FD_OPS_COPY);
	if (!o->lib)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the plugin cannot be linked: %s", dlerror());
	return PT2BOX_OK;
}

/* The first untrusted instruction. */
static void construct(const struct ops *o)
{
	struct link_map *map = NULL;
	static char name[] = "plugin";
	char *argv[] = {name, NULL}, *envp[] = {NULL};

	if (dlinfo(o->lib, RTLD_DI_LINKMAP, &map) != 0)
		return;
	if (o->init_addr)
		((void (*)(int, char **, char **))(map->l_addr + o->init_addr))(1, argv, envp);
	for (uint32_t i = 0; o->init_array_addr && i < o->init_array_count; i++) {
		void (**array)(int, char **, char **) =
			(void (**)(int, char **, char **))(map->l_addr + o->init_array_addr);

		if (array[i])
			array[i](1, argv, envp);
	}
}

static pb_status prepare(struct ops *o, const struct options *opt, struct pt2box_error *err)
{
	pb_status st = pb_ops_new_host(&o->process, opt->result_bytes, opt->torch ? &pb_dispatcher_provider : NULL, err);

	if (!st && !opt->torch)
		st = pb_host_take(o->process.host, o->lib, err);
	return st ? st : pb_ops_prepare(&o->process, opt->some, err);
}

static pb_status before_plugin(struct ops *o, const struct options *opt, const char **ret_wants,
			       struct pt2box_error *err)
{
	pb_status st = copy_plugin(err);

	if (!st)
		st = pb_ops_map_board(&o->process, err);
	if (!st && opt->torch)
		st = pb_dispatcher_load(opt->torch, err);
	if (!st)
		st = open_names(err);
	if (!st)
		st = pb_confine_ops(&opt->confine, err);
	if (!st)
		st = pb_manifest_read(PB_FD_OPS_MANIFEST, &o->process.manifest, err);
	close(PB_FD_OPS_MANIFEST);
	if (!st)
		st = gate(o, opt->torch, ret_wants, err);
	if (!st)
		st = link_plugin(o, err);
	if (!st)
		st = pb_confine_ops_run(&opt->confine, err);
	return st;
}

int main(int argc, char **argv)
{
	static struct ops o;
	static const int fds[] = {0, 1, PB_FD_STDERR, PB_FD_OPS_CTL, PB_FD_OPS_MANIFEST, PB_FD_OPS_BOARD, PB_FD_OPS_PLUGIN};
	struct options opt = {.confine = {.threads = 1, .link_fd = -1}};
	struct pt2box_error e = {.status = PT2BOX_OK};
	const char *wants = "";

	if (!parse(argc, argv, &opt) || getpid() != 1) {
		fprintf(stderr, "pt2box-ops: is started by pt2boxd, not by hand\n");
		return 2;
	}
	if (pb_confine_fds(fds, sizeof(fds) / sizeof(fds[0]), &e) || before_plugin(&o, &opt, &wants, &e))
		pb_ops_give_up(&e, wants);
	construct(&o);
	if (prepare(&o, &opt, &e))
		pb_ops_give_up(&e, "");
	pb_ops_serve_process(&o.process);
}
