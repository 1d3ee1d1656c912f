/* svg.c - the chart, drawn by gnuplot: a panel for each workload, a group of bars for each of its lines, and in the group
 * a bar for each malloc, as a multiple of the best private one.
 *
 * Heaps that take a lock for each call, and Go, are not in it: they would need another scale.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/tgbench/tgbench.h"

#define PANEL_HEIGHT 230
#define TOP          8 /* taller bars are cut off */
#define BOTTOM       0.25

static bool is_drawn(const struct tgb_bench *b, unsigned a)
{
	enum tgb_kind kind = b->allocators[a].kind;

	return b->allocators[a].wanted && b->allocators[a].missing == NULL &&
	       (kind == TGB_PRIVATE || kind == TGB_SELF || kind == TGB_PRELOAD);
}

/* Only a group with something to compare. */
static bool is_group(const struct tgb_bench *b, unsigned c, unsigned m)
{
	const struct tgb_metric *metric = &b->cells[c].metrics[m];

	return strcmp(metric->key, "slowdown") != 0 && tgb_best(b, c, m, TGB_PRIVATE, NULL) > 0;
}

/* Names of lines hold no blanks or quotes; where a line has several figures, their unit tells them apart. */
static void write_data(const struct tgb_bench *b, const char *workload, FILE *to)
{
	unsigned c, m, a;
	bool several;

	fputs("$data << EOD\n", to);
	for (c = 0; c < b->n_cells; c++) {
		for (m = 0; strcmp(b->cells[c].workload, workload) == 0 &&
			    b->cells[c].metrics[m].key != NULL;
		     m++) {
			if (!is_group(b, c, m))
				continue;
			several = b->cells[c].metrics[1].key != NULL;
			fprintf(to, "\"%s%s%s\"", b->cells[c].name, several ? "\\n" : "",
				several ? b->cells[c].metrics[m].unit : "");
			for (a = 0; a < b->n_allocators; a++) {
				struct tgb_figure f = tgb_figure(b, c, m, a);

				if (!is_drawn(b, a))
					continue;
				if (f.n > 0)
					fprintf(to, " %.4f",
						f.median / tgb_best(b, c, m, TGB_PRIVATE, NULL));
				else
					fprintf(to, " %g", BOTTOM); /* no bar, but a point */
			}
			fputc('\n', to);
		}
	}
	fputs("EOD\n", to);
}

static void plot(const struct tgb_bench *b, FILE *to)
{
	static const char *const colours[] = {"#0b3d91", "#6fa8dc", "#999999", "#e69138",
					      "#6aa84f", "#cc4125", "#8e7cc3", "#bf9000",
					      "#76a5af", "#a64d79"};
	unsigned a, n = 0;

	for (a = 0; a < b->n_allocators; a++) {
		if (!is_drawn(b, a))
			continue;
		fprintf(to, "%s using %u%s with histograms lc rgb \"%s\" title \"%s\"",
			n == 0 ? "plot $data" : ", ''", n + 2, n == 0 ? ":xtic(1)" : "",
			colours[n % (sizeof(colours) / sizeof(*colours))], b->allocators[a].name);
		n++;
	}
	fputs(", 1 with lines lc rgb \"black\" notitle\n", to);
}

static bool is_panel(const struct tgb_bench *b, unsigned c)
{
	unsigned i, m;

	for (i = 0; i < c; i++) {
		if (strcmp(b->cells[i].workload, b->cells[c].workload) == 0)
			return false;
	}
	for (i = c; i < b->n_cells; i++) {
		for (m = 0; strcmp(b->cells[i].workload, b->cells[c].workload) == 0 &&
			    b->cells[i].metrics[m].key != NULL;
		     m++) {
			if (is_group(b, i, m))
				return true;
		}
	}
	return false;
}

static void draw(const struct tgb_bench *b, FILE *to)
{
	unsigned c, n = 0;

	for (c = 0; c < b->n_cells; c++)
		n += is_panel(b, c);
	fprintf(to, "set terminal svg size 1400,%u dynamic background rgb 'white' font 'sans,11'\n",
		n * PANEL_HEIGHT + 40);
	fprintf(to,
		"set multiplot layout %u,1 title \"times as much as the best private allocator "
		"(shorter is better; "
		"medians of %u rounds)\"\n",
		n, b->rounds);
	fputs("set style data histograms\nset style histogram clustered gap 1\nset style fill "
	      "solid 0.9 noborder\n"
	      "set boxwidth 0.9\nset logscale y 2\nset grid ytics\nset key outside right top\n"
	      "set xtics rotate by -25 font ',9' nomirror\nset bmargin 5\n",
	      to);
	fprintf(to, "set yrange [%g:%d]\nset ytics (%s)\n", BOTTOM, TOP,
		"\"1/4\" 0.25, \"1/2\" 0.5, \"1\" 1, \"2\" 2, \"4\" 4, \"8\" 8");
	for (c = 0; c < b->n_cells; c++) {
		if (!is_panel(b, c))
			continue;
		fprintf(to, "set title \"%s\" offset 0,-0.5\n", b->cells[c].workload);
		write_data(b, b->cells[c].workload, to);
		plot(b, to);
	}
	fputs("unset multiplot\n", to);
}

/* gnuplot, with what we write on its standard input and the chart on its standard output. */
static pid_t start(FILE *chart, FILE **ret_to)
{
	int ends[2];
	pid_t pid;

	if (pipe(ends) < 0)
		return -1;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (dup2(ends[0], STDIN_FILENO) < 0 || dup2(fileno(chart), STDOUT_FILENO) < 0)
			_exit(126);
		close(ends[0]);
		close(ends[1]);
		execlp("gnuplot", "gnuplot", "-", (char *)NULL);
		_exit(127);
	}
	close(ends[0]);
	*ret_to = fdopen(ends[1], "w");
	return pid;
}

int tgb_svg(const struct tgb_bench *b, const char *path)
{
	FILE *chart = fopen(path, "we"), *to = NULL;
	int status = -1;
	pid_t pid;

	if (chart == NULL)
		return -1;
	signal(SIGPIPE, SIG_IGN);
	pid = start(chart, &to);
	if (pid > 0 && to != NULL) {
		draw(b, to);
		fclose(to);
		waitpid(pid, &status, 0);
	}
	fclose(chart);
	if (status == 0)
		return 0;
	unlink(path);
	return -1;
}
