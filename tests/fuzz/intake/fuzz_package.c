/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a package: its parts, then all of intake. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/intake/intake.h"
#include "broker/intake/package.h"
#include "ipc/manifest.h"
#include "ipc/socket.h"
#include "tests/fuzz/replay.h"

#define MAX (16u << 20)

static void read_entries(int fd)
{
	struct pb_package p;

	if (pb_package_open(&p, fd, MAX, NULL) == PT2BOX_OK)
		for (uint32_t i = 0; i < p.n_entries; i++) {
			char *text;

			if (pb_package_read(&p, &p.entries[i], 1u << 16, &text, NULL) == PT2BOX_OK)
				free(text);
		}
	pb_package_deinit(&p);
}

/* Whatever intake says must be readable for the broker. */
static void check_manifest(int fd)
{
	struct pb_manifest *m;
	uint8_t *data;
	size_t n;

	if (pb_fd_slurp(fd, PB_MANIFEST_MAX_BYTES, &data, &n, NULL))
		abort();
	if (pb_manifest_decode(data, n, &m, NULL))
		abort();
	pb_manifest_free(m);
	free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char digest[PB_DIGEST_TEXT];
	struct pb_intake in = {.model = "model", .max_package_bytes = MAX, .constants_in = -1};

	in.package = memfd_create("package", MFD_CLOEXEC);
	in.out_model = memfd_create("model", MFD_CLOEXEC);
	in.out_constants = memfd_create("constants", MFD_CLOEXEC);
	in.out_manifest = memfd_create("manifest", MFD_CLOEXEC);
	if (in.package < 0 || in.out_model < 0 || in.out_constants < 0 || in.out_manifest < 0 ||
	    write(in.package, data, size) != (ssize_t)size)
		abort();
	read_entries(in.package);
	if (pb_intake_run(&in, digest, NULL) == PT2BOX_OK)
		check_manifest(in.out_manifest);
	close(in.package);
	close(in.out_model);
	close(in.out_constants);
	close(in.out_manifest);
	return 0;
}
