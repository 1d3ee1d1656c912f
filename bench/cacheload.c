/* cacheload.c - tg-cacheload: asks a cache server that speaks memcached's text protocol without pause, and tells how it did.
 *
 * First `--fill`, which sets each key once; then a run: gets and sets of these keys, each answer checked.  The size of a
 * value follows from its key, so two servers that were filled by it hold the same.
 *
 * usage: tg-cacheload --port PORT [--address ADDRESS] [--fill] [--json] [--connections N] [--pipeline N] [--keys N]
 *                     [--zipf THETA] [--gets PERCENT] [--sizes MIN-MAX] [--warmup SECONDS] [--seconds SECONDS]
 *                     [--server PID]...
 *
 * --server: the processes of the server, for the processor time that they took for a request.
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/cacheload.h"

#define SERVERS_MAX 64

static struct load_options options = {
	.address = "127.0.0.1",
	.n_conns = 32,
	.pipeline = 1,
	.n_keys = 500000,
	.gets = 90,
	.min_size = 100,
	.max_size = 1024,
	.warmup_s = 1,
	.seconds = 5,
};
static pid_t servers[SERVERS_MAX];
static unsigned n_servers;
static double cpu_s;
static bool as_json;

void load_die(const char *format, ...)
{
	va_list args;

	fputs("tg-cacheload: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}

/* ---- the server's time ---- */

/* The 14th and 15th field of stat; the 2nd is a name in parentheses, in which anything may stand. */
static double cpu_of(pid_t pid)
{
	unsigned long user, kernel;
	char path[64], line[1024];
	const char *after;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (f == NULL)
		load_die("process %d: %m", (int)pid);
	n = fread(line, 1, sizeof(line) - 1, f);
	fclose(f);
	line[n] = '\0';
	after = strrchr(line, ')');
	if (after == NULL ||
	    sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
		   &kernel) != 2)
		load_die("%s cannot be understood", path);
	return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

/* At the begin what they have used so far is subtracted, at the end it is added. */
static void mark(bool done)
{
	unsigned i;

	for (i = 0; i < n_servers; i++)
		cpu_s += done ? cpu_of(servers[i]) : -cpu_of(servers[i]);
}

/* ---- the answer ---- */

static void say(const char *name, double value, int digits)
{
	static bool said;

	if (as_json)
		printf("%s\"%s\": %.*f", said ? ", " : "{", name, digits, value);
	else
		printf("%s %.*f\n", name, digits, value);
	said = true;
}

static void report(const struct load_result *result)
{
	uint64_t n = result->n_gets + result->n_sets;

	if (n == 0)
		load_die("not one request was answered in time");
	say("requests", (double)n, 0);
	say("seconds", result->seconds, 3);
	say("requests_per_s", (double)n / result->seconds, 0);
	say("gets", (double)result->n_gets, 0);
	say("hit_ratio", result->n_gets ? (double)result->n_hits / (double)result->n_gets : 0, 6);
	say("p50_us", bench_histogram_us(&result->latency, 0.5), 1);
	say("p99_us", bench_histogram_us(&result->latency, 0.99), 1);
	say("p999_us", bench_histogram_us(&result->latency, 0.999), 1);
	say("max_us", (double)result->latency.max_ns / 1e3, 1);
	if (n_servers > 0)
		say("cpu_us_per_request", cpu_s * 1e6 / (double)n, 3);
	if (as_json)
		puts("}");
}

/* ---- the command line ---- */

static void usage(void)
{
	fputs("usage: tg-cacheload --port PORT [--address ADDRESS] [--fill] [--json]\n"
	      "                    [--connections N] [--pipeline N] [--keys N] [--zipf THETA]\n"
	      "                    [--gets PERCENT] [--sizes MIN-MAX] [--warmup SECONDS]\n"
	      "                    [--seconds SECONDS] [--server PID]...\n",
	      stderr);
	exit(2);
}

static double number(const char *text, double min, double max)
{
	double value;
	char *end;

	errno = 0;
	value = strtod(text, &end);
	if (errno != 0 || end == text || *end != '\0' || !(value >= min && value <= max)) {
		fprintf(stderr, "tg-cacheload: \"%s\" is not a number from %g to %g\n", text, min,
			max);
		usage();
	}
	return value;
}

static void set_sizes(char *text)
{
	char *line = strchr(text, '-');

	if (line == NULL)
		usage();
	*line = '\0';
	options.min_size = (unsigned)number(text, LOAD_KEY_LEN, LOAD_SIZE_MAX);
	options.max_size = (unsigned)number(line + 1, options.min_size, LOAD_SIZE_MAX);
}

static void add_server(const char *text)
{
	if (n_servers == SERVERS_MAX)
		load_die("more than %d processes", SERVERS_MAX);
	servers[n_servers++] = (pid_t)number(text, 1, 1 << 30);
}

static void set(int option, char *value)
{
	switch (option) {
	case 'a':
		options.address = value;
		break;
	case 'p':
		options.port = value;
		break;
	case 'f':
		options.fill = true;
		break;
	case 'j':
		as_json = true;
		break;
	case 'c':
		options.n_conns = (unsigned)number(value, 1, LOAD_CONNS_MAX);
		break;
	case 'l':
		options.pipeline = (unsigned)number(value, 1, LOAD_PIPELINE_MAX);
		break;
	case 'k':
		options.n_keys = (unsigned)number(value, 2, 1e9);
		break;
	case 'z':
		options.zipf = number(value, 0, 0.999);
		break;
	case 'g':
		options.gets = (unsigned)number(value, 0, 100);
		break;
	case 's':
		set_sizes(value);
		break;
	case 'w':
		options.warmup_s = number(value, 0, 3600);
		break;
	case 't':
		options.seconds = number(value, 0.01, 3600);
		break;
	case 'P':
		add_server(value);
		break;
	default:
		usage();
	}
}

int main(int argc, char **argv)
{
	static const struct option names[] = {
		{"address", required_argument, NULL, 'a'},
		{"connections", required_argument, NULL, 'c'},
		{"fill", no_argument, NULL, 'f'},
		{"gets", required_argument, NULL, 'g'},
		{"json", no_argument, NULL, 'j'},
		{"keys", required_argument, NULL, 'k'},
		{"pipeline", required_argument, NULL, 'l'},
		{"port", required_argument, NULL, 'p'},
		{"seconds", required_argument, NULL, 't'},
		{"server", required_argument, NULL, 'P'},
		{"sizes", required_argument, NULL, 's'},
		{"warmup", required_argument, NULL, 'w'},
		{"zipf", required_argument, NULL, 'z'},
		{NULL, 0, NULL, 0},
	};
	static struct load_result result;
	int option;

	while ((option = getopt_long(argc, argv, "", names, NULL)) >= 0)
		set(option, optarg);
	if (options.port == NULL || optind != argc)
		usage();
	load_run(&options, mark, &result);
	report(&result);
	return 0;
}
