/* work-tiny.c - millions of tiny objects: what each takes, and what it costs.
 */
#include "bench/tgbench/alloc.h"
#include "bench/tgbench/worker.h"

void tgb_work_tinymix(void)
{
	const uint32_t *sizes = tgb_sizes("even", tgb_arg("lo", 1), tgb_arg("hi", 15));
	uint32_t n = (uint32_t)(tgb_arg("live", 4e6) * tgb_arg("scale", 1)), i;
	void **objects = tgb_table(n * sizeof(*objects));
	double before = tgb_memory(), grown;
	struct tgb_use use, frees;

	tgb_use_begin(&use);
	for (i = 0; i < n; i++) {
		objects[i] = TGB_MALLOC(sizes[i & (TGB_SIZES - 1)]);
		if (objects[i] == NULL)
			tgb_die("out of memory");
		tgb_write(objects[i], false, i);
	}
	tgb_use_end(&use);
	grown = tgb_memory() - before;
	tgb_use_begin(&frees);
	for (i = 0; i < n; i++)
		TGB_FREE(objects[i]);
	tgb_use_end(&frees);
	tgb_report("malloc_ns", use.wall_ns / n);
	tgb_report("free_ns", frees.wall_ns / n);
	use.wall_ns += frees.wall_ns;
	use.cpu_ns += frees.cpu_ns;
	use.daemon_ns += frees.daemon_ns;
	use.messages += frees.messages;
	use.kept_ns += frees.kept_ns;
	tgb_use_report(&use, n);
	tgb_report("object_bytes", grown / n);
}
