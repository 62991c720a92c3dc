/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration from any bytes: it is the operator's file, but a mistake in it must be an error, never a crash. */
#include <stdio.h>
#include <stdlib.h>

#include "broker/config.h"
#include "tests/fuzz/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_service_conf *c = NULL;
	struct pt2box_error e = {.status = PT2BOX_OK};
	FILE *in = size ? fmemopen((void *)data, size, "r") : NULL, *out = fopen("/dev/null", "w");

	if (in && out && !pb_config_parse(in, "fuzz", &c, &e))
		pb_config_print(out, c);
	else if (in && out && (!e.status || !e.text[0]))
		abort(); /* refused without a word */
	pb_config_free(c);
	if (in)
		fclose(in);
	if (out)
		fclose(out);
	return 0;
}
