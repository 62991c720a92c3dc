/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box-intake: reads one hostile package and ends. The spawner gave it numbered descriptors and nothing else; it
 * confines itself before it touches any of them.
 */
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/intake/intake.h"
#include "confine/confine.h"
#include "ipc/fdmap.h"

/* Private memory: texts of the package and what libraries make of them. The outputs are shared memory, not counted. */
#define MEMORY_BYTES (512ull << 20)

struct options {
	struct pb_intake intake;
	struct pb_confine_spec confine;
};

static bool number(const char *s, uint64_t max, uint64_t *ret)
{
	char *end;

	if (*s < '0' || *s > '9')
		return false;
	*ret = strtoull(s, &end, 10);
	return *end == '\0' && *ret <= max;
}

static bool parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"model", required_argument, NULL, 'm'}, {"max-package-bytes", required_argument, NULL, 'b'},
		{"uid", required_argument, NULL, 'u'},	 {"gid", required_argument, NULL, 'g'},
		{"inspect", no_argument, NULL, 'i'},	 {NULL, 0, NULL, 0}};
	uint64_t v;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 'm')
			o->intake.model = optarg;
		else if (c == 'i')
			o->intake.inspect = true;
		else if (c == 'b' && number(optarg, INT64_MAX, &v))
			o->intake.max_package_bytes = v;
		else if (c == 'u' && number(optarg, UINT32_MAX, &v))
			o->confine.uid = (uint32_t)v;
		else if (c == 'g' && number(optarg, UINT32_MAX, &v))
			o->confine.gid = (uint32_t)v;
		else
			return false;
	}
	return optind == argc && o->intake.model && o->intake.max_package_bytes;
}

static void report(const struct pt2box_error *e)
{
	char safe[sizeof(e->text)];
	msgpack_sbuffer buf;
	msgpack_packer pk;

	pb_text_escape(safe, sizeof(safe), e->text, strlen(e->text));
	msgpack_sbuffer_init(&buf);
	msgpack_packer_init(&pk, &buf, msgpack_sbuffer_write);
	msgpack_pack_array(&pk, 2);
	msgpack_pack_uint32(&pk, e->status);
	msgpack_pack_str(&pk, strlen(safe));
	msgpack_pack_str_body(&pk, safe, strlen(safe));
	(void)!write(PB_FD_RESULT, buf.data, buf.size);
	msgpack_sbuffer_destroy(&buf);
}

int main(int argc, char **argv)
{
	struct options o = {.intake = {.package = PB_FD_PACKAGE,
				       .constants_in = -1,
				       .out_model = PB_FD_OUT_MODEL,
				       .out_constants = PB_FD_OUT_CONSTANTS,
				       .out_manifest = PB_FD_OUT_MANIFEST},
			    .confine = {.memory_bytes = MEMORY_BYTES, .threads = 1, .link_fd = -1}};
	struct pt2box_error e = {.status = PT2BOX_OK};

	if (!parse(argc, argv, &o)) {
		fprintf(stderr, "pt2box-intake is started by pt2boxd\n");
		return PT2BOX_USAGE;
	}
	if (!o.intake.model[0])
		o.intake.model = "model";
	if (fcntl(PB_FD_CONSTANTS_FILE, F_GETFD) >= 0)
		o.intake.constants_in = PB_FD_CONSTANTS_FILE;
	json_object_seed(0); /* takes its seed from a file, which cannot be opened later */
	if (pb_confine_intake(&o.confine, &e) || pb_intake_run(&o.intake, &e))
		o.intake.inspect = false; /* e says why */
	report(&e);
	return 0;
}
