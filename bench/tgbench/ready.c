/* ready.c - memory that the machine has at hand, for a run that measures what fresh memory costs.
 *
 * The host of a virtual machine gives it memory when somebody first touches it, and takes back what lies free for a second
 * or two (free page reporting): 2 MiB from the host cost 5 ms, 2 MiB at hand 0.8 ms.  How much of it a run happens to get
 * from the host says more of the figure than the allocator does.  So a process touches as much as the run will need, in huge
 * pages, since these are the pieces that a host takes; just before the run it ends, and right after the run another one has
 * the memory, for the next run.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/tgbench/tgbench.h"

#define OS_PAGE     4096
#define THREADS_MAX 16

static struct {
	pid_t pid; /* 0: there is none */
	size_t bytes;
	double took_s;
} holder;

/* Should there be too little memory, it is this process that has to go, and nobody else. */
static void be_first_to_go(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, "1000", 4) != 4)
		_exit(1);
	if (fd >= 0)
		close(fd);
}

struct part {
	volatile char *memory;
	size_t bytes;
};

static void *touch(void *arg)
{
	const struct part *part = arg;
	size_t at;

	for (at = 0; at < part->bytes; at += OS_PAGE)
		part->memory[at] = 1;
	return NULL;
}

/* On all CPUs: that is so many times faster also where the host has to give it. */
static void hold(size_t bytes)
{
	unsigned n = (unsigned)sysconf(_SC_NPROCESSORS_ONLN), i;
	struct part parts[THREADS_MAX];
	pthread_t threads[THREADS_MAX];
	char *memory;

	n = n > THREADS_MAX ? THREADS_MAX : n;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		_exit(1);
	(void)madvise(memory, bytes, MADV_HUGEPAGE);
	for (i = 0; i < n; i++) {
		parts[i] = (struct part){memory + bytes / n * i, bytes / n};
		if (pthread_create(&threads[i], NULL, touch, &parts[i]) != 0)
			_exit(1);
	}
	for (i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	/* Which tells the one who waits for us. */
	for (;;)
		raise(SIGSTOP);
}

double tgb_ready_take(size_t bytes)
{
	double begun = tgb_now_s();
	pid_t parent = getpid();
	int status = 0;

	if (holder.pid > 0 && holder.bytes == bytes)
		return holder.took_s;
	tgb_ready_give();
	holder.pid = fork();
	if (holder.pid == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
			_exit(1);
		be_first_to_go();
		hold(bytes);
	}
	holder.bytes = bytes;
	if (holder.pid > 0 && waitpid(holder.pid, &status, WUNTRACED) == holder.pid &&
	    WIFSTOPPED(status))
		return holder.took_s = tgb_now_s() - begun;
	holder.pid = 0;
	return -1;
}

void tgb_ready_give(void)
{
	if (holder.pid <= 0)
		return;
	kill(holder.pid, SIGKILL);
	waitpid(holder.pid, NULL, 0);
	holder.pid = 0;
}
