/* What sanitizers watch: threads, a heap, a deep stack, maps, a child. With an argument it does wrong, to be caught. */
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Looking for leaks at the end takes ptrace(2), which is another test's subject. */
const char *__asan_default_options(void) { return "detect_leaks=0"; }
const char *__lsan_default_options(void) { return "detect_leaks=0"; }

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int counter, racy;

static void *count(void *wrong)
{
    for (int i = 0; i < 1000; i++) {
        pthread_mutex_lock(&lock);
        counter++;
        pthread_mutex_unlock(&lock);
    }
    if (wrong)
        racy++;
    return NULL;
}

static int deep(int depth)
{
    volatile char block[1024];
    memset((char *)block, depth, sizeof block);
    return depth == 0 ? block[1023] : deep(depth - 1) + block[depth % 1024] * 0;
}

int main(int argc, char **argv)
{
    int wrong = argc > 1;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, count, wrong ? &wrong : NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    size_t total = 0;
    for (size_t size = 1; size < (64 << 20); size = size * 3 + 1) {
        char *block = malloc(size);
        memset(block, 1, size);
        total += block[size - 1];
        free(block);
    }
    char *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(map, 2, 1 << 20);
    printf("%d %zu %d %d\n", counter, total, deep(1000), map[4096]);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(malloc(100) ? 7 : 8);
    int status;
    waitpid(child, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
    fflush(stdout);
    if (wrong) {
        char *volatile gone = malloc(10);
        free(gone);
        volatile int large = INT_MAX;
        large = large + argc;
        volatile char byte = gone[5];
        (void)byte;
    }
    return 0;
}
