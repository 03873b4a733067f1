/* What a debugger looks at. With an argument it waits to be attached to. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static volatile int total;

static int add(int a, int b)
{
	int sum = a + b;
	return sum;
}

static void *thread(void *arg)
{
	total = add(total, *(int *)arg);
	return NULL;
}

static void wait_for_input(void)
{
	char byte;
	while (read(0, &byte, 1) > 0)
		;
}

int main(int argc, char **argv)
{
	pthread_t other;
	int five = 5;
	(void)argv;
	for (int i = 0; i < 3; i++)
		total = add(total, i);
	if (pthread_create(&other, NULL, thread, &five) != 0)
		return 1;
	pthread_join(other, NULL);
	if (argc > 1)
		wait_for_input();
	printf("total %d\n", total);
	return total;
}
