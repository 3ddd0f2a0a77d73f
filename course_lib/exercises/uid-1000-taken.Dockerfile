# A base on which uid 1000 is somebody already, as it is on Ubuntu's and on NVIDIA NGC's.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG TAKEN=1000
RUN getent passwd ${TAKEN} || useradd --uid ${TAKEN} --create-home ubuntu
